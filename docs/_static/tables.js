// Names each cell's column, for poolproof.css to show on a narrow screen.
document.addEventListener("DOMContentLoaded", () => {
  for (const table of document.querySelectorAll("table.docutils")) {
    const heads = [...table.querySelectorAll("thead th")].map((th) => th.innerText.trim());
    for (const row of table.querySelectorAll("tbody tr")) {
      [...row.children].forEach((cell, n) => {
        if (heads[n]) cell.dataset.column = `${heads[n]}:`;
      });
    }
  }
});
