// An image under its title. An active one, which has a size, has a cursor: arrow keys move it, with Shift by single pixels; a click, a drag,
// Enter or Space sends a stroke, the list of the [row, column] that it passes. Until the kernel says that it has it, the image is "waiting".
function render({ model, el }) {
  const [rows, columns] = model.get("size");
  const title = document.createElement("div");
  title.className = "rk-title";
  title.ariaHidden = "true"; // the image has the same words
  const box = document.createElement("div");
  const image = document.createElement("img");
  box.className = "rk-canvas";
  image.draggable = false;
  box.append(image);
  el.append(title, box);

  function draw() {
    URL.revokeObjectURL(image.src);
    image.src = URL.createObjectURL(new Blob([model.get("png")], { type: "image/png" }));
  }
  model.on("change:png", draw);
  draw();

  function describe() {
    title.textContent = image.alt = model.get("label");
  }
  model.on("change:label", describe);
  describe();
  if (!rows) return;

  box.tabIndex = 0;
  box.setAttribute("role", "application");
  box.setAttribute("aria-label", model.get("label"));
  box.dataset.lmSuppressShortcuts = "true"; // JupyterLab would take the keys to move between cells
  const cursor = document.createElement("div");
  cursor.className = "rk-cursor";
  box.append(cursor);

  function place() {
    const [row, column] = model.get("cursor");
    cursor.style.top = `${(100 * (row + 0.5)) / rows}%`;
    cursor.style.left = `${(100 * (column + 0.5)) / columns}%`;
  }
  model.on("change:cursor", place);
  place();

  function send(stroke) {
    box.classList.add("rk-waiting");
    model.send({ stroke });
  }
  model.on("msg:custom", () => box.classList.remove("rk-waiting"));

  const clamp = (n, length) => Math.max(0, Math.min(length - 1, Math.floor(n)));
  const inside = (row, column) => [clamp(row, rows), clamp(column, columns)];

  const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  box.addEventListener("keydown", (event) => {
    const [row, column] = model.get("cursor");
    if (event.key in steps) {
      const [down, right] = steps[event.key];
      const step = event.shiftKey ? 1 : Math.ceil(Math.max(rows, columns) / 32);
      model.set("cursor", inside(row + down * step, column + right * step));
      model.save_changes();
    } else if (event.key === "Enter" || event.key === " ") {
      send([[row, column]]);
    } else return;
    event.preventDefault();
  });

  let stroke = null;
  function extend(event) {
    const area = image.getBoundingClientRect();
    const y = ((event.clientY - area.top) / area.height) * rows;
    const x = ((event.clientX - area.left) / area.width) * columns;
    const [row, column] = inside(y, x);
    const [fromRow, fromColumn] = stroke.at(-1) ?? [row, column];
    const count = Math.max(Math.abs(row - fromRow), Math.abs(column - fromColumn), stroke.length ? 0 : 1);
    for (let i = 1; i <= count; i++) {
      const share = i / count; // the mouse skips pixels, a stroke does not
      stroke.push([
        Math.round(fromRow + share * (row - fromRow)),
        Math.round(fromColumn + share * (column - fromColumn)),
      ]);
    }
  }
  box.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    box.setPointerCapture(event.pointerId);
    stroke = [];
    extend(event);
  });
  box.addEventListener("pointermove", (event) => stroke && extend(event));
  box.addEventListener("pointerup", () => {
    if (stroke) send(stroke);
    stroke = null;
  });
  box.addEventListener("pointercancel", () => (stroke = null));
}

export default { render };
