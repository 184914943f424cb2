// A patient's map of lung and lesions to paint on, by mouse, touch and keyboard. The network draws the lung after each
// touch, and what changed against the unpainted map: in the painted pixels, and in the rest of the lung.
(function () {
  const { latest, element, button, range, picture, grey, change, save, unpack } = covlibLive.tools;
  const LUNG = 1, STEPS = 50;  // strokes that can be taken back

  const rgb = (colour) => [1, 3, 5].map((k) => parseInt(colour.slice(k, k + 2), 16));

  const nearest = (k, from, to) => Math.floor((k + 0.5) * from / to);

  // The same labels at another network's size, each pixel from the nearest one.
  function resized(map, from, to) {
    const found = new Float32Array(to * to);
    for (let row = 0; row < to; row++)
      for (let column = 0; column < to; column++)
        found[row * to + column] = map[nearest(row, from, to) * from + nearest(column, from, to)];
    return found;
  }

  const mean = (sum, count) => (count ? sum / count : 0);

  // What the network's answer changed against the one for the unpainted map, in grey (-1 to 1).
  function compare(image, before, map, base) {
    const sums = { painted: [0, 0], rest: [0, 0] };
    for (let k = 0; k < map.length; k++) {
      if (map[k] < LUNG) continue;
      const sum = sums[map[k] === base[k] ? "rest" : "painted"];
      sum[0] += Math.abs(image[k] - before[k]);
      sum[1] += 1;
    }
    return { painted: mean(...sums.painted), rest: mean(...sums.rest), pixels: sums.painted[1] };
  }

  class Painter {
    constructor(box, network, other, patients) {
      const { data } = network.asset;
      Object.assign(this, { box, network, other, patients, data, size: data.size, patient: 0, undo: [] });
      this.row = this.column = Math.floor(this.size / 2);
      this.cursor = false;
      this.ask = latest(() => this.work());
      this.build();
    }

    // ---- what is seen

    build() {
      const { data, size } = this, outputs = this.network.asset.outputs;
      const keys = "Arrow keys move the brush, Shift and arrows by more; Space or Enter paints, Control and Z undoes.";
      this.map = picture("The map: paint here.", size, false, {
        tabindex: 0, class: "covlib-live-touch", role: "application", "data-first": true,
        "aria-roledescription": "map to paint on", "aria-label": `Map of lung and lesions to paint on. ${keys}` });
      this.drawn = picture(`What ${data.title} draws.`, size, true);
      this.moved = picture("", size, true, { "aria-label": "Change of the lung against the unpainted map" });
      this.share = outputs.includes("share") && picture("", size, true, { "aria-label": "The global branch's share" });
      this.beside = this.other && picture(`What ${data.beside[1]} draws.`, this.other.asset.data.size, true);
      const brushes = element("fieldset", {}, element("legend", {}, "Brush"));
      data.labels.forEach((label, k) => {
        const input = element("input", { type: "radio", name: `${this.network.asset.name}-brush`, value: label.value,
                                         checked: k === 1 });
        const swatch = element("span", { class: "covlib-live-swatch", style: `background: ${label.colour}` });
        brushes.append(element("label", {}, input, swatch, label.name));
      });
      this.brush = () => Number(brushes.querySelector("input:checked").value);
      const radius = Math.max(1, Math.round(size / 20));
      this.width = range("Radius", { min: 0.5, max: size / 6, step: 0.5, value: radius }, (r) => `${r} px`,
                         () => this.draw());
      this.around = element("input", { type: "checkbox", checked: true, onchange: () => this.draw() });
      this.said = element("p", { role: "status" });
      const pictures = [this.map, this.drawn, this.moved, this.share, this.beside].filter(Boolean);
      this.box.append(
        element("div", { class: "covlib-live-row" }, brushes, this.width.label),
        element("div", { class: "covlib-live-pictures" }, ...pictures.map((one) => one.figure)),
        element("div", { class: "covlib-live-row" },
                button("Undo", () => this.back()), button("Reset", () => this.reset()),
                button("Another patient", () => this.next()),
                button("Save the pictures", () => save([this.map.canvas, this.drawn.canvas, this.moved.canvas],
                                                       this.network.asset.name)),
                element("label", {}, this.around, "in the patient's slice")),
        this.said);
      this.listen();
    }

    draw() {
      const { labels: map, size } = this, colours = { 0: [0, 0, 0] }, patient = this.patients[this.patient];
      for (const label of this.data.labels) colours[label.value] = rgb(label.colour);
      this.map.show((colour) => map.forEach((label, k) => colour(k, ...colours[label])), (context, times) => {
        if (!this.cursor) return;
        const x = (this.column + 0.5) * times, y = (this.row + 0.5) * times, r = Number(this.width.input.value) * times;
        for (const [style, line] of [["#000", 4], ["#fff", 2]]) {
          context.strokeStyle = style;
          context.lineWidth = line;
          context.beginPath();
          context.arc(x, y, r, 0, 2 * Math.PI);
          context.stroke();
        }
      });
      if (!this.image) return;
      const around = this.around.checked;
      const slice = (values, k) => (map[k] >= LUNG ? grey(values[k]) : around ? patient.around[k] : 0);
      this.drawn.show((colour) => this.image.forEach((_, k) => {
        const value = slice(this.image, k);
        colour(k, value, value, value);
      }));
      const unit = this.data.hu_per_grey, most = 0.4;
      this.moved.show((colour) => map.forEach((label, k) =>
        change(colour, k, label >= LUNG ? this.image[k] - this.before[k] : 0, most)));
      this.moved.caption.textContent = "Change against the unpainted map: blue darker, vermilion brighter"
        + (unit ? `, full colour at ${Math.round(most * unit)} HU.` : ".");
      if (this.share) {
        this.share.show((colour) => map.forEach((label, k) => {
          const value = label >= LUNG ? Math.round(255 * this.part[k]) : 0;
          colour(k, value, value, value);
        }));
        this.share.caption.textContent = "The global branch's share in what is drawn: black none, white all.";
      }
      if (this.beside) {
        const side = this.other.asset.data.size;
        const at = (k) => nearest(Math.floor(k / side), size, side) * size + nearest(k % side, size, side);
        this.beside.show((colour) => this.besides.forEach((value, k) => {
          const shown = map[at(k)] >= LUNG ? grey(value) : around ? patient.around[at(k)] : 0;
          colour(k, shown, shown, shown);
        }));
      }
    }

    tell(milliseconds, alpha) {
      const { painted, rest, pixels } = compare(this.image, this.before, this.labels, this.base);
      const unit = this.data.hu_per_grey;
      const amount = (value) =>
        (unit ? `${(value * unit).toFixed(0)} HU` : `${(50 * value).toFixed(1)} % of the grey scale`);
      const words = [`Patient ${this.patient + 1} of ${this.patients.length}.`];
      if (alpha !== undefined) words.push(`Alpha, the local branch's weight: ${alpha.toFixed(3)}.`);
      words.push(pixels ? `Where you painted (${pixels} pixels) the lung changed by ${amount(painted)} on average, `
                          + `elsewhere in the lung by ${amount(rest)}.` : "Nothing is painted yet.");
      words.push(`Drawn in ${Math.round(milliseconds)} ms.`);
      this.said.textContent = words.join(" ");
    }

    // ---- what is done

    async start() {
      const patient = this.patients[this.patient];
      this.base = patient.map;
      this.labels = patient.map.slice();
      this.undo = [];
      this.before = null;
      await this.work();
    }

    async work() {
      const { size } = this, labels = this.labels.slice(), began = performance.now();
      const found = await this.network.run({ map: { data: Float32Array.from(labels), dims: [1, size, size] } });
      const taken = performance.now() - began;
      if (this.other) {
        const side = this.other.asset.data.size;
        const given = { map: { data: resized(labels, size, side), dims: [1, side, side] } };
        this.besides = (await this.other.run(given)).image.data;
      }
      this.image = found.image.data;
      this.before ??= this.image;
      this.part = found.share?.data;
      this.draw();
      this.tell(taken, found.alpha?.data[0]);
    }

    keep() {
      this.undo.push(this.labels.slice());
      if (this.undo.length > STEPS) this.undo.shift();
    }

    // A disc of the brush's label, in the lung only, and along the way from (row, column) to the brush's place.
    dab(row = this.row, column = this.column) {
      const r = Number(this.width.input.value), label = this.brush(), { size, labels } = this;
      const steps = Math.max(1, Math.ceil(2 * Math.hypot(this.row - row, this.column - column) / Math.max(1, r)));
      for (let step = 0; step <= steps; step++) {
        const y = row + (this.row - row) * step / steps, x = column + (this.column - column) * step / steps;
        for (let i = Math.max(0, Math.floor(y - r)); i <= Math.min(size - 1, Math.ceil(y + r)); i++)
          for (let j = Math.max(0, Math.floor(x - r)); j <= Math.min(size - 1, Math.ceil(x + r)); j++)
            if ((i - y) ** 2 + (j - x) ** 2 <= r * r && labels[i * size + j] >= LUNG) labels[i * size + j] = label;
      }
      this.draw();
      this.ask();
    }

    back() {
      if (!this.undo.length) return;
      this.labels = this.undo.pop();
      this.draw();
      this.ask();
    }

    reset() {
      this.keep();
      this.labels = this.base.slice();
      this.draw();
      this.ask();
    }

    next() {
      this.patient = (this.patient + 1) % this.patients.length;
      return this.start();
    }

    // ---- mouse, touch, keyboard

    inside(k) {
      return Math.max(0, Math.min(this.size - 1, k));
    }

    place(event) {
      const box = this.map.canvas.getBoundingClientRect();
      this.row = this.inside(Math.floor((event.clientY - box.top) / box.height * this.size));
      this.column = this.inside(Math.floor((event.clientX - box.left) / box.width * this.size));
    }

    listen() {
      const { canvas } = this.map;
      canvas.addEventListener("pointerdown", (event) => {
        canvas.setPointerCapture(event.pointerId);
        this.place(event);
        this.keep();
        this.dab();
      });
      canvas.addEventListener("pointermove", (event) => {
        const [row, column] = [this.row, this.column];
        this.cursor = true;
        this.place(event);
        if (event.buttons) this.dab(row, column);
        else this.draw();
      });
      canvas.addEventListener("pointerleave", () => { this.cursor = false; this.draw(); });
      canvas.addEventListener("focus", () => { this.cursor = true; this.draw(); });
      canvas.addEventListener("blur", () => { this.cursor = false; this.draw(); });
      canvas.addEventListener("keydown", (event) => this.key(event));
      this.box.addEventListener("keydown", (event) => {
        event.stopPropagation();  // the book's own keys turn pages
        if (event.key.toLowerCase() !== "z" || !(event.ctrlKey || event.metaKey)) return;
        event.preventDefault();
        this.back();
      });
    }

    key(event) {
      const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
      const step = event.shiftKey ? Math.max(2, Math.round(this.size / 16)) : 1;
      if (moves[event.key]) {
        this.row = this.inside(this.row + step * moves[event.key][0]);
        this.column = this.inside(this.column + step * moves[event.key][1]);
        this.draw();
      } else if (event.key === " " || event.key === "Enter") {
        if (!event.repeat) this.keep();
        this.dab();
      } else return;
      event.preventDefault();
    }
  }

  async function patientsOf(asset) {
    return Promise.all(asset.data.patients.map(async ({ map, around }) =>
      ({ map: await unpack(map), around: await unpack(around) })));
  }

  covlibLive.kinds.paint = async (box, network) => {
    const { beside } = network.asset.data;
    const other = beside ? await covlibLive.open(beside[0]).catch(() => null) : null;  // it may not be in this build
    const painter = new Painter(box, network, other, await patientsOf(network.asset));
    await painter.start();
    return painter;
  };
})();
