'use strict';
// A click on a column's head sorts the table by it; a second click turns the order round. Cells without a figure stay last.
for (const table of document.querySelectorAll('table')) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.firstChild.addEventListener('click', () => {
    const falls = head.getAttribute('aria-sort') !== 'descending' && column > 0
      || column === 0 && head.getAttribute('aria-sort') === 'ascending';
    for (const other of heads) other.removeAttribute('aria-sort');
    head.setAttribute('aria-sort', falls ? 'descending' : 'ascending');
    const key = row => column ? row.cells[column].dataset.value : row.cells[0].textContent;
    const compare = (a, b) => column ? a - b : a.localeCompare(b);
    const rows = [...table.tBodies[0].rows].sort((a, b) => {
      const [x, y] = [key(a), key(b)];
      return x === '' || y === '' ? (x === '') - (y === '') : (falls ? -1 : 1) * compare(x, y);
    });
    table.tBodies[0].append(...rows);
  }));
}
