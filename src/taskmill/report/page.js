(() => {
  const section = document.getElementById("samples");
  if (!section) return;
  const rows = [...section.querySelectorAll("details.row")];
  const buttons = [...section.querySelectorAll("[data-task]:is(button)")];
  const search = section.querySelector("input");
  const output = section.querySelector("output");
  const none = section.querySelector(".none");
  const shown = () => rows.filter((row) => !row.hidden);
  let task = "";

  const count = () => {
    const list = shown();
    const at = list.findIndex((row) => row.open);
    output.textContent = at < 0 ? `${list.length}` : `${at + 1} / ${list.length}`;
    none.hidden = list.length > 0;
  };
  const open = (row) => {
    for (const other of rows) other.open = other === row;
  };
  const filter = () => {
    const words = search.value.toLowerCase().trim();
    for (const row of rows) {
      const fits = !task || row.dataset.task === task;
      row.hidden = !fits || (words && !row.textContent.toLowerCase().includes(words));
    }
    if (!shown().some((row) => row.open)) open(shown()[0]);
    count();
  };
  const step = (by) => {
    const list = shown();
    if (!list.length) return;
    const at = list.findIndex((row) => row.open);
    const next = list[(at + by + list.length) % list.length];
    open(next);
    next.scrollIntoView({ block: "nearest" });
  };

  for (const button of buttons) {
    button.addEventListener("click", () => {
      task = button.dataset.task;
      for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
      filter();
    });
  }
  for (const button of section.querySelectorAll("[data-step]")) {
    button.addEventListener("click", () => step(Number(button.dataset.step)));
  }
  for (const row of rows) row.addEventListener("toggle", count);
  search.addEventListener("input", filter);
  document.addEventListener("keydown", (event) => {
    if (event.target.matches("input, textarea, button")) return;
    if (event.key === "j" || event.key === "ArrowRight") step(1);
    if (event.key === "k" || event.key === "ArrowLeft") step(-1);
  });
  section.querySelector(".tools").hidden = false;
  count();
})();
