// An X-ray through the network: before, after, and what changed, turned up or down; the reader's own picture too, which
// is read here and goes nowhere.
(function () {
  const { latest, element, button, range, picture, grey, change, save, unpack } = covlibLive.tools;
  const MOST = 0.5;  // change in grey (-1 to 1) that has full colour

  // A picture file as grey values (-1 to 1) of size x size pixels: its middle square, halved step by step, so that no
  // pixel is skipped, then fitted.
  async function read(file, size) {
    const image = await createImageBitmap(file), side = Math.min(image.width, image.height);
    let canvas = element("canvas", { width: side, height: side });
    canvas.getContext("2d").drawImage(image, (side - image.width) / 2, (side - image.height) / 2);
    while (canvas.width !== size) {
      const next = Math.max(size, Math.floor(canvas.width / 2)), smaller = canvas.width <= size ? size : next;
      const fitted = element("canvas", { width: smaller, height: smaller }), context = fitted.getContext("2d");
      context.imageSmoothingQuality = "high";
      context.drawImage(canvas, 0, 0, smaller, smaller);
      canvas = fitted;
    }
    const { data } = canvas.getContext("2d").getImageData(0, 0, size, size);
    return Float32Array.from({ length: size * size }, (_, k) =>
      (0.299 * data[4 * k] + 0.587 * data[4 * k + 1] + 0.114 * data[4 * k + 2]) / 127.5 - 1);
  }

  class Translator {
    constructor(box, network, images, section) {
      const { data } = network.asset;
      Object.assign(this, { box, network, images, data, size: data.size, number: 0, section });
      this.ask = latest(() => this.work());
      this.build();
    }

    build() {
      const { size, data, box } = this;
      this.before = picture("", size, false, { "aria-label": "The X-ray that the network is given" });
      this.after = picture("", size, true, { "aria-label": "What the network makes of it" });
      this.moved = picture("What changed: blue darker, vermilion brighter.", size, true);
      this.strength = range("Change, multiplied by", { min: 0, max: 3, step: 0.1, value: 1 }, (x) => x.toFixed(1),
                            () => this.draw());
      this.said = element("p", { role: "status" });
      this.file = element("input", { type: "file", accept: "image/*", onchange: () => this.take(this.file.files[0]) });
      const drop = element("div", { class: "covlib-live-drop" },
        element("label", {}, "Your own X-ray, or any picture (or drop it here): ", this.file),
        element("p", {}, element("small", {}, "It is read in this page and never leaves it. The network knows chest "
          + `X-rays of ${data.who}, ${size} pixels a side, and nothing else; what it makes says nothing about `
          + "anybody's health.")));
      const next = button("Another patient", () => this.next());
      next.setAttribute("data-first", "");
      box.append(
        element("div", { class: "covlib-live-pictures covlib-live-three" }, this.before.figure, this.after.figure,
                this.moved.figure),
        element("div", { class: "covlib-live-row" },
                next, this.strength.label,
                button("Save the pictures", () => save([this.after.canvas, this.moved.canvas], network.asset.name))),
        drop, this.said);
      box.addEventListener("keydown", (event) => event.stopPropagation());
      const over = (on) => (event) => {
        event.preventDefault();
        drop.classList.toggle("covlib-live-over", on);
      };
      this.section.addEventListener("dragover", over(true));
      this.section.addEventListener("dragleave", over(false));
      this.section.addEventListener("drop", (event) => {
        over(false)(event);
        if (event.dataTransfer.files.length) this.take(event.dataTransfer.files[0]);
      });
    }

    async take(file) {
      if (!file) return;
      try {
        this.source = await read(file, this.size);
      } catch {
        this.said.textContent = `${file.name} is no picture that this browser can read; PNG or JPEG is wanted.`;
        return;
      }
      this.name = `your picture ${file.name}`;
      await this.ask();
    }

    next() {
      const { images, number } = this;
      this.source = Float32Array.from(images[number], (value) => value / 127.5 - 1);
      this.name = `held-out patient ${number + 1} of ${images.length}`;
      this.number = (number + 1) % images.length;
      return this.ask();
    }

    async work() {
      const { size, source, name } = this, began = performance.now();
      const found = await this.network.run({ source: { data: source, dims: [1, 1, size, size] } });
      Object.assign(this, { given: source, made: found.image.data, named: name, taken: performance.now() - began });
      this.draw();
    }

    draw() {
      const { given, made } = this, times = Number(this.strength.input.value);
      const shift = (k) => times * (made[k] - given[k]);
      const shown = (values) => (colour) => given.forEach((_, k) => {
        const value = grey(values(k));
        colour(k, value, value, value);
      });
      this.before.show(shown((k) => given[k]));
      this.before.caption.textContent = `Before: ${this.named}.`;
      this.after.show(shown((k) => given[k] + shift(k)));
      this.after.caption.textContent = `After: ${this.data.title}, ${this.data.what}`
        + (times === 1 ? "." : `; its change multiplied by ${times.toFixed(1)}.`);
      this.moved.show((colour) => given.forEach((_, k) => change(colour, k, shift(k), MOST)));
      const sum = given.reduce((total, _, k) => total + Math.abs(made[k] - given[k]), 0);
      const mean = (50 * sum / given.length).toFixed(1);
      this.said.textContent = `The network changed a pixel by ${mean} % of the grey scale on average, in `
        + `${this.named}. Drawn in ${Math.round(this.taken)} ms.`;
    }
  }

  covlibLive.kinds.translate = async (box, network, section) => {
    const images = await Promise.all(network.asset.data.images.map(unpack));
    await new Translator(box, network, images, section).next();
  };
})();
