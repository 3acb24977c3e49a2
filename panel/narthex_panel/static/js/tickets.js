// Open a live stream's WebSocket: a ticket is asked for, then spent at once.

const PROTOCOL = "narthex.v1";

/** Ask for a ticket; rejects with TypeError where the network fails. */
export function askTicket(wanted) {
  return fetch("/live/tickets", {
    method: "POST",
    headers: {
      "Content-Type": "application/json",
      "X-CSRF-Token": document.querySelector('meta[name="csrf-token"]').content,
    },
    body: JSON.stringify(wanted),
  });
}

/** Spend a ticket: it stands among the protocols, never in the address. */
export function openSocket(ticket) {
  const url = new URL("/live/ws", location.href);
  url.protocol = url.protocol.replace("http", "ws");
  return new WebSocket(url, [PROTOCOL, `ticket.${ticket}`]);
}
