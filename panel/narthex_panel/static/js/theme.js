// Follow the system's theme before the first paint, for whoever chose to; must not be a module.
(() => {
  const root = document.documentElement;
  if (root.dataset.theme === "system") {
    const dark = window.matchMedia("(prefers-color-scheme: dark)");
    const follow = () => { root.dataset.bsTheme = dark.matches ? "dark" : "light"; };
    follow();
    dark.addEventListener("change", follow);
  }
  // htmx parses the pages that it fetches; scripts and their addresses stay forbidden sinks.
  if (window.trustedTypes) {
    window.trustedTypes.createPolicy("default", { createHTML: (html) => html });
  }
})();
