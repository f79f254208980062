/* Documentation: mathematics and code in their looks; on a wide screen the list stands open. */
(() => {
  "use strict";
  const { highlight, katex } = document.currentScript.dataset;
  window.rondo.typeset(document.querySelector(".docs-text"), { highlight, katex });
  const list = document.querySelector("[data-list]");
  const wide = matchMedia("(min-width: 60rem)");
  const suit = () => (list.open = wide.matches);
  wide.addEventListener("change", suit);
  suit();
  // A folder's list is a heading of the closed list on a phone.
  if (location.hash && list.querySelector(location.hash)) {
    list.open = true;
    list.querySelector(location.hash).scrollIntoView();
  }
})();
