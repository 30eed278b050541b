// Sets light or dark before anything is drawn. A classic script, so that it runs before the first paint.
(() => {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const chosen = () => {
    try { return localStorage.getItem("dualview.theme"); } catch { return null; }
  };
  const apply = () => {
    document.documentElement.dataset.theme = chosen() ?? (system.matches ? "dark" : "light");
    document.dispatchEvent(new Event("theme"));
  };
  system.addEventListener("change", apply);
  window.dualviewTheme = {
    toggle() {
      const next = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
      const ofSystem = system.matches ? "dark" : "light";
      try { // a choice that is the system's own follows the system again
        if (next === ofSystem) localStorage.removeItem("dualview.theme");
        else localStorage.setItem("dualview.theme", next);
      } catch { /* storage is off: the choice lasts until the page is left */ }
      document.documentElement.dataset.theme = next;
      document.dispatchEvent(new Event("theme"));
    },
  };
  apply();
})();
