// Show instants in the reader's zone and language, and ages that grow.
const language = document.documentElement.lang || "en";
const full = new Intl.DateTimeFormat(language, {
  year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit",
  second: "2-digit", hourCycle: "h23", timeZoneName: "short",
});
const clock = new Intl.DateTimeFormat(language, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const precise = new Intl.DateTimeFormat(language, {
  hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3, hourCycle: "h23",
});
const day = new Intl.DateTimeFormat(language, { month: "short", day: "numeric" });
const units = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];
const relative = Object.fromEntries(units.map(([unit]) => [
  unit, new Intl.NumberFormat(language, { style: "unit", unit, unitDisplay: "narrow" }),
]));

export function zone() {
  return new Intl.DateTimeFormat(language, { timeZoneName: "short" })
    .formatToParts(new Date()).find((part) => part.type === "timeZoneName")?.value ?? "";
}

export function age(seconds) {
  const [unit, length] = units.find(([, size]) => seconds >= size) ?? units.at(-1);
  return relative[unit].format(Math.max(0, Math.floor(seconds / length)));
}

function isToday(at) {
  return at.toDateString() === new Date().toDateString();
}

function show(element) {
  const at = new Date(element.dateTime);
  if (Number.isNaN(at.getTime())) return;
  const mode = element.dataset.time;
  if (!element.title) element.title = full.format(at);
  let value;
  if (mode === "ago") {
    const seconds = (Date.now() - at.getTime()) / 1000;
    value = document.body.dataset.textAgo.replace("{age}", age(seconds));
  } else if (mode === "left") {
    value = age((at.getTime() - Date.now()) / 1000);
  } else if (mode === "short") {
    value = isToday(at) ? clock.format(at) : `${day.format(at)}, ${clock.format(at)}`;
  } else if (mode === "precise") {
    value = isToday(at) ? precise.format(at) : `${day.format(at)} ${precise.format(at)}`;
  } else {
    value = full.format(at);
  }
  if (element.textContent !== value) element.textContent = value;
}

export function localise(root = document) {
  root.querySelectorAll?.("time[data-time]").forEach(show);
  if (root.matches?.("time[data-time]")) show(root);
}

export function start() {
  localise();
  document.querySelectorAll("[data-zone]").forEach((element) => { element.textContent = zone(); });
  setInterval(() => {
    if (!document.hidden) document.querySelectorAll('time[data-time="ago"], time[data-time="left"]').forEach(show);
  }, 1000);
}
