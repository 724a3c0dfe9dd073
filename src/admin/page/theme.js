// Applies the chosen colours before the page is drawn.
(() => {
  let theme = null;
  try {
    theme = localStorage.getItem("theme");
  } catch {
    // Storage is off: the choice lasts until the page is left.
  }
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
})();
