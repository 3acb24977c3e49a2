"""What the firewall's page may say of default policies."""

from tests.exporter.actions.conftest import pretended

from narthex_exporter.queries import CATALOGUE

UFW = {
    "/etc/default/ufw": 'DEFAULT_INPUT_POLICY="DROP"\n',
    "/etc/ufw/user.rules": "*filter\nCOMMIT\n",
}


def policies(enabled: str) -> set[str]:
    files = {**UFW, "/etc/ufw/ufw.conf": f"ENABLED={enabled}\n"}
    query = CATALOGUE["firewall.get"]
    told = query.read(query.params.model_validate({}), pretended({"files": files}))
    return {one["backend"] for one in told.model_dump(mode="json")["policies"]}


def test_the_policy_of_a_firewall_that_is_not_in_force_is_not_told() -> None:
    assert "ufw" not in policies("no")
    assert "ufw" in policies("yes")
