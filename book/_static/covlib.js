// Names for the theme's buttons; line breaks in long names; figures that a phone can enlarge; numbers kept with their units; print in light colours; hover texts for the glossary's words, whose definitions come from terms.js, which is written while the book is built.
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

  // A column with sentences in it is marked, so that it is not squeezed into a word a line; long ones get more room,
  // and so do the names of rows beside many numbers. Two columns share the page as it is.
  function markWords(table) {
    const rows = [...table.rows], columns = rows[0] ? [...rows[0].cells] : [];
    if (columns.length < 3) return;
    columns.forEach((_, k) => {
      const cells = rows.map((row) => row.cells[k]).filter(Boolean);
      const longest = Math.max(0, ...cells.map((cell) => cell.textContent.length));
      if (longest > 40) cells.forEach((cell) => cell.classList.add(longest > 160 ? "covlib-long" : "covlib-words"));
      else if (!k && longest > 20 && columns.length > 4) cells.forEach((cell) => cell.classList.add("covlib-name"));
    });
  }

  // Code and prints with long lines get an element for each line, so that what wraps can be indented (covlib.css).
  function rows(pre) {
    if (!pre.textContent.split("\n").some((line) => line.length > 80)) return;
    const texts = document.createTreeWalker(pre, NodeFilter.SHOW_TEXT), made = [];
    const begin = () => {
      const row = document.createElement("span");
      row.className = "covlib-row";
      made.push(row);
    };
    begin();
    for (let text = texts.nextNode(); text; text = texts.nextNode())
      text.data.split("\n").forEach((part, k) => {
        if (k) {
          const end = document.createElement("span");
          end.className = "covlib-row-end";
          end.textContent = "\n";
          made.push(end);
          begin();
        }
        let piece = document.createTextNode(part);
        for (let around = text.parentElement; around !== pre; around = around.parentElement) {
          const copy = around.cloneNode(false);
          copy.append(piece);
          piece = copy;
        }
        if (part) made.at(-1).append(piece);
      });
    for (const row of made) row.style.setProperty("--indent", row.textContent.search(/\S|$/));
    if (!made.at(-1).textContent) made.pop();  // behind the last line's end
    pre.replaceChildren(...made);
  }

  // "40 %" and "19 dB" stay in one line, and so do a formula and the full stop behind it.
  function join(article) {
    const texts = document.createTreeWalker(article, NodeFilter.SHOW_TEXT), units = /(\d) (?=(?:%|dB|HU|ms|mm)(?!\w))/g;
    for (let text = texts.nextNode(); text; text = texts.nextNode())
      if (text.data.search(units) >= 0 && !text.parentElement.closest("pre, code, script, style, textarea, .math"))
        text.data = text.data.replace(units, "$1\u00a0");
    for (const formula of article.querySelectorAll("span.math")) {
      const next = formula.nextSibling, mark = next?.nodeType === Node.TEXT_NODE && /^[.,;:)!?]+/.exec(next.data);
      if (!mark) continue;
      const both = document.createElement("span");
      both.className = "covlib-joined";
      formula.replaceWith(both);
      both.append(formula, mark[0]);
      next.data = next.data.slice(mark[0].length);
    }
  }

  // While something wide is on the screen, the list of contents makes room. The theme looks for it once, and a table that
  // grew wide with its fonts comes too late for that: this watches all that the theme does, after it, and those too.
  function makeRoom() {
    const list = document.querySelector("div.bd-sidebar-secondary"), seen = new Set();
    if (!list) return;
    const watch = new IntersectionObserver((entries) => {
      for (const entry of entries) seen[entry.isIntersecting ? "add" : "delete"](entry.target);
      list.classList.toggle("hide", seen.size > 0);
    }, { rootMargin: "0px 0px -33% 0px" });
    const kinds = ["full-width", "margin", "margin-caption", "marginnote", "sidenote", "sidebar", "popout"];
    for (const wide of document.querySelectorAll(kinds.map((kind) => `.${kind}, .tag_${kind}`).join(", ")))
      watch.observe(wide);
  }

  // A table that is wider than the column takes the margin too. This comes before DOMContentLoaded, when the theme
  // looks for what is in the margin and hides the list of contents there; and again when fonts and styles are there.
  document.addEventListener("readystatechange", () => {
    document.querySelectorAll(".bd-article table").forEach(markWords);
    for (const table of document.querySelectorAll(".cell_output table.covlib"))
      if (table.offsetWidth > table.parentElement.clientWidth)
        table.closest("div.cell").classList.add("tag_full-width");
    if (document.readyState === "complete") makeRoom();
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
    document.querySelectorAll(".bd-article").forEach(join);
    document.querySelectorAll(".cell_input pre, .cell_output div.highlight pre").forEach(rows);
    // Long names in tables, above sources and in the list of contents break behind "_", "." and "/", not within a word.
    const named = "table.covlib td > code, .cell_output summary > code, .bd-sidebar-secondary .pre";
    for (const name of document.querySelectorAll(named)) {
      const parts = name.textContent.split(/(?<=[_./])/);
      if (parts.length > 1 && !name.children.length)
        name.replaceChildren(...parts.flatMap((part, k) => k ? [document.createElement("wbr"), part] : [part]));
    }
    if (document.querySelector("section[data-live][data-bytes]")) {  // networks that run in the page
      const script = document.createElement("script");
      script.src = new URL("live/live.js", here);
      document.head.append(script);
    }
    const links = [...document.querySelectorAll('.bd-article a[href*="glossary.html#term-"]')];
    if (!links.length) return;
    const script = document.createElement("script");
    script.src = new URL("terms.js", here);
    script.onload = () => wire(links, window.covlibTerms);
    document.head.append(script);
  });
})();
