"use strict";
// without this script the page is complete: tables keep their order, and SQL is marked by hand
for (const table of document.querySelectorAll("table.sortable")) {
  table.tHead.querySelectorAll("th").forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    head.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => sort(table, head, column));
  });
}

function sort(table, head, column) {
  const numeric = head.classList.contains("number");
  // numbers are most often wanted from the largest
  const order = head.getAttribute("aria-sort");
  const ascending = order === "none" ? !numeric : order === "descending";
  const value = (row) => {
    const cell = row.cells[column];
    const raw = cell.dataset.value ?? cell.textContent;
    return numeric ? (raw === "" ? NaN : Number(raw)) : raw;
  };
  const compare = (a, b) => {
    const [x, y] = [value(a), value(b)];
    if (numeric && (isNaN(x) || isNaN(y))) {
      return isNaN(x) - isNaN(y);
    }
    const difference = numeric ? x - y : x.localeCompare(y);
    return ascending ? difference : -difference;
  };
  table.tBodies[0].append(...[...table.tBodies[0].rows].sort(compare));
  for (const other of head.parentNode.cells) {
    other.setAttribute("aria-sort", other === head ? (ascending ? "ascending" : "descending") : "none");
  }
}

for (const box of document.querySelectorAll(".sql")) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Copy";
  button.addEventListener("click", async () => {
    const code = box.querySelector("code");
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
    } catch {
      // no permission: mark the text, so that one key press copies it
      getSelection().selectAllChildren(code);
      button.textContent = "Marked";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
  box.append(button);
}
