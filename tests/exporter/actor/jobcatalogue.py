"""Actions that are jobs, made for tests: they wait, print, and change a file under a guard."""

from pathlib import Path
from typing import Annotated

from pydantic import Field
from typing_extensions import override

from narthex_exporter.contract.facts import Facts
from narthex_exporter.contract.spec import Catalogue, Danger, Params, Planned, action
from narthex_exporter.contract.steps import Confirm, Guard, RunProgram, Undo, WriteFile


class ScriptParams(Params):
    """A shell script of the test's own: no action of the product has one."""

    script: str

    @property
    @override
    def resource(self) -> str:
        return "process/script"


class FileParams(Params):
    """A file to change under a guard."""

    path: str
    content: str
    seconds: Annotated[float, Field(gt=0)] = 30.0
    then: str = ""
    program: str = ""

    @property
    @override
    def resource(self) -> str:
        return f"process/{self.path}"


@action(name="process.script", title="Script", danger=Danger.SAFE, timeout_seconds=30)
def script(params: ScriptParams, _facts: Facts) -> Planned:
    """Run a script."""
    yield RunProgram(argv=("sh", "-c", params.script))


@action(name="process.brief", title="Brief", danger=Danger.SAFE, timeout_seconds=10.5)
def brief(params: ScriptParams, _facts: Facts) -> Planned:
    """Run a script that may not take long."""
    yield RunProgram(argv=("sh", "-c", params.script), timeout_seconds=1.0)


@action(name="process.guarded", title="Guarded", danger=Danger.DISRUPTIVE, timeout_seconds=90)
def guarded(params: FileParams, facts: Facts) -> Planned:
    """Change a file, and keep the change once it is confirmed."""
    before = facts.files.read(params.path)
    yield Undo(action="process.guarded", params={"path": params.path, "content": before})
    yield Guard(
        revert=(
            WriteFile(path=params.path, content=before or "", before=params.content),
            RunProgram(argv=("touch", "--", f"{params.path}.reverted")),
        ),
        seconds=params.seconds,
    )
    yield WriteFile(path=params.path, content=params.content, before=before)
    if params.then:
        yield RunProgram(argv=("sh", "-c", params.then))
    if params.program:
        yield RunProgram(argv=(params.program,))
    yield Confirm()
    yield RunProgram(argv=("touch", "--", f"{params.path}.kept"))


CATALOGUE = Catalogue(actions={one.name: one for one in (script, brief, guarded)})
REPOSITORY = Path(__file__).parents[3]
