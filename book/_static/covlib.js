// Names for the theme's buttons; line breaks in long names; figures that a phone can enlarge; print in light colours; hover texts for the glossary's words, whose definitions come from terms.js, which is written while the book is built.
(function () {
  const here = document.currentScript.src;
  let box = null;

  function hide() {
    if (box) box.hidden = true;
  }

  function show(link, text) {
    if (!box) {
      box = document.createElement("div");
      box.id = "covlib-term";
      box.setAttribute("role", "tooltip");
      box.addEventListener("mouseleave", hide);
      document.body.append(box);
    }
    box.textContent = text;
    box.hidden = false;
    const place = link.getBoundingClientRect(), room = document.documentElement.clientWidth;
    const left = Math.max(8, Math.min(place.left, room - box.offsetWidth - 8));
    const above = place.top - box.offsetHeight;
    box.style.left = left + "px";
    box.style.top = (above > 8 ? above : place.bottom) + "px";
    link.setAttribute("aria-describedby", box.id);
  }

  function wire(links, terms) {
    for (const link of links) {
      const text = terms[decodeURIComponent(link.hash.slice(1))];
      if (!text) continue;
      link.classList.add("covlib-term");
      link.addEventListener("mouseenter", () => show(link, text));
      link.addEventListener("focus", () => show(link, text));
      link.addEventListener("blur", hide);
      link.addEventListener("mouseleave", (event) => { if (event.relatedTarget !== box) hide(); });
    }
    document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
    window.addEventListener("scroll", hide, { passive: true });
  }

  // Below each figure that is drawn smaller than it is, a button (covlib.css shows it on a phone) that enlarges it.
  function enlargeable(image) {
    const button = document.createElement("button"), frame = document.createElement("div");
    button.type = "button";
    button.className = "covlib-enlarge";
    frame.className = "covlib-figure";
    const set = (large) => {
      frame.classList.toggle("covlib-large", large);
      if (large) frame.tabIndex = 0;  // what scrolls can be reached by keyboard
      else frame.removeAttribute("tabindex");
      button.textContent = large ? "Fit to the page" : "Enlarge the figure";
    };
    set(false);
    button.addEventListener("click", () => set(!frame.classList.contains("covlib-large")));
    image.replaceWith(frame);
    frame.append(image);
    frame.after(button);
  }

  // A column with sentences in it is marked, so that it is not squeezed into a word a line; long ones get more room.
  function markWords(table) {
    const rows = [...table.rows];
    (rows[0] ? [...rows[0].cells] : []).forEach((_, k) => {
      const cells = rows.map((row) => row.cells[k]).filter(Boolean);
      const longest = Math.max(0, ...cells.map((cell) => cell.textContent.length));
      if (longest > 40) cells.forEach((cell) => cell.classList.add(longest > 160 ? "covlib-long" : "covlib-words"));
    });
  }

  // A table that is wider than the column takes the margin too. This comes before DOMContentLoaded, when the theme
  // looks for what is in the margin and hides the list of contents there; and again when fonts and styles are there.
  document.addEventListener("readystatechange", () => {
    for (const table of document.querySelectorAll(".cell_output table.covlib"))
      if (table.offsetWidth > table.parentElement.clientWidth)
        table.closest("div.cell").classList.add("tag_full-width");
  });

  // On paper the page is light, whatever it is on the screen.
  const page = document.documentElement;
  window.addEventListener("beforeprint", () => {
    if (page.dataset.theme !== "dark") return;
    page.dataset.theme = "light";
    window.addEventListener("afterprint", () => { page.dataset.theme = "dark"; }, { once: true });
  });

  document.addEventListener("DOMContentLoaded", () => {
    // The theme's buttons that unfold a page's sub-pages have no name.
    for (const fold of document.querySelectorAll("nav details > summary:not([aria-label])")) {
      const page = fold.closest("li")?.querySelector("a");
      fold.setAttribute("aria-label", "pages below " + (page ? page.textContent.trim() : "this one"));
    }
    const pictures = document.querySelectorAll(".bd-article .cell_output img, .bd-article figure:not(.covlib-map) img");
    for (const picture of pictures)
      if (!picture.closest("section[aria-label]")) enlargeable(picture);  // viewers and quizzes are as large as they go
    document.querySelectorAll(".bd-article table").forEach(markWords);
    // Long names in tables, above sources and in the list of contents break behind "_", "." and "/", not within a word.
    const named = "table.covlib td > code, .cell_output summary > code, .bd-sidebar-secondary .pre";
    for (const name of document.querySelectorAll(named)) {
      const parts = name.textContent.split(/(?<=[_./])/);
      if (parts.length > 1 && !name.children.length)
        name.replaceChildren(...parts.flatMap((part, k) => k ? [document.createElement("wbr"), part] : [part]));
    }
    const links = [...document.querySelectorAll('.bd-article a[href*="glossary.html#term-"]')];
    if (!links.length) return;
    const script = document.createElement("script");
    script.src = new URL("terms.js", here);
    script.onload = () => wire(links, window.covlibTerms);
    document.head.append(script);
  });
})();
