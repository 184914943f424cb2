/* Tables of class "sortable" get a button in each head: a press sorts by that column, another one turns the order.
   Numbers are sorted by their cell's data-sort; cells without a number stay last. Without scripts the table is as it was. */
document.addEventListener("DOMContentLoaded", () => {
  for (const table of document.querySelectorAll("table.covlib.sortable")) {
    const body = table.tBodies[0];
    const heads = [...table.tHead.rows[0].cells];

    const key = (row, column) => {
      const cell = row.cells[column];
      if (!cell.hasAttribute("data-sort")) return cell.textContent.trim();
      return cell.dataset.sort === "" ? null : Number(cell.dataset.sort);
    };

    const sortBy = (column, ascending) => {
      const sign = ascending ? 1 : -1;
      const rows = [...body.rows].map((row, place) => ({ row, place, key: key(row, column) }));
      rows.sort((a, b) => {
        if (a.key === null || b.key === null) return (a.key === null) - (b.key === null) || a.place - b.place;
        const order = typeof a.key === "number" ? a.key - b.key : a.key.localeCompare(b.key);
        return sign * order || a.place - b.place;
      });
      body.append(...rows.map(({ row }) => row));
      heads.forEach((head, k) => head.setAttribute("aria-sort", k !== column ? "none" : ascending ? "ascending" : "descending"));
    };

    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.title = "Sort by this column";
      button.append(...head.childNodes);
      head.append(button);
      head.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => sortBy(column, head.getAttribute("aria-sort") !== "ascending"));
    });
  }
});
