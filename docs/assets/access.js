// What the theme's script adds to a page is given to the keyboard and a name: tables that scroll, and copy buttons.
const name = () => {
  for (const box of document.querySelectorAll(".md-typeset__scrollwrap, .md-typeset pre > code")) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
  }
  document.querySelectorAll(".md-code__nav").forEach((nav, i) => nav.setAttribute("aria-label", `Code ${i + 1}`));
  document.querySelectorAll("nav[aria-labelledby]").forEach((nav) => {
    if (nav.matches(".md-nav--secondary *") || nav.dataset.mdLevel > 0) nav.setAttribute("role", "group");
  });
};
window.addEventListener("load", () => setTimeout(name, 100));
window.addEventListener("resize", name);
