// Runs before the first paint, so that a chosen scheme does not flash. The scheme is all that this page stores for good.
"use strict";
try {
  const scheme = localStorage.getItem("ekiben-scheme");
  if (scheme === "light" || scheme === "dark") document.documentElement.dataset.scheme = scheme;
} catch {
  // Storage is turned off: the scheme of the system holds.
}
