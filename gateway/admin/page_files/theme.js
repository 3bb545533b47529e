// Before anything is painted: the theme that was chosen, else that of the system.
(function () {
  let chosen = null;
  try { chosen = localStorage.getItem("tollgate-theme"); } catch { /* storage may be off */ }
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
})();
