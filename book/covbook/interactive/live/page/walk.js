// A walk through the noise that a generator reads: four samples at the corners, two sliders between them.
(function () {
  const { latest, element, button, range, picture, grey, save } = covlibLive.tools;
  const CORNERS = ["top left", "top right", "bottom left", "bottom right"], STEPS = 24;

  // Normal numbers from a seed: mulberry32 and the Box-Muller transform.
  function normal(seed, count) {
    let state = seed >>> 0;
    const uniform = () => {
      state = (state + 0x6d2b79f5) >>> 0;
      let t = Math.imul(state ^ (state >>> 15), 1 | state);
      t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
      return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
    return Float32Array.from({ length: count }, () =>
      Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform()));
  }

  // Between four samples, as long as a sample is: weights whose squares sum to one.
  function between(corners, x, y) {
    const weights = [(1 - x) * (1 - y), x * (1 - y), (1 - x) * y, x * y];
    const length = Math.hypot(...weights);
    return corners[0].map((_, k) => corners.reduce((sum, z, i) => sum + weights[i] / length * z[k], 0));
  }

  class Walk {
    constructor(box, network) {
      const { data } = network.asset;
      Object.assign(this, { box, network, data, size: data.size, seed: 1 });
      this.ask = latest(() => this.work());
      this.build();
    }

    build() {
      const { size, data, box } = this;
      this.corners = CORNERS.map((place) => picture(`A sample, ${place}`, size, true));
      this.here = picture("", size, true, { "aria-label": "What the generator makes of noise between the samples" });
      this.steps = element("canvas", { width: 384, height: 384, role: "img", "aria-label": "Change at each step" });
      const cell = (value) => `${Math.round(100 * value)} %`;
      const slider = (title) => range(title, { min: 0, max: 1, step: 0.01, value: 0.5 }, cell, () => this.ask());
      [this.across, this.down] = [slider("From left to right"), slider("From top to bottom")];
      this.across.input.setAttribute("data-first", "");
      this.said = element("p", { role: "status" });
      const mosaic = element("div", { class: "covlib-live-pictures" }, ...this.corners.map((one) => one.canvas));
      const samples = element("figcaption", {}, `Four samples of ${data.title}, class ${data.what}.`);
      const stepped = element("figcaption", {}, "Change from each step of the walk to the next; dashed: their mean.");
      box.append(
        element("div", { class: "covlib-live-pictures covlib-live-three" }, element("figure", {}, mosaic, samples),
                this.here.figure, element("figure", {}, this.steps, stepped)),
        element("div", { class: "covlib-live-row" }, this.across.label, this.down.label),
        element("div", { class: "covlib-live-row" },
                button("Walk from left to right", () => this.go()), button("New samples", () => this.fresh()),
                button("Save the picture", () => save([this.here.canvas], this.network.asset.name))),
        this.said);
      box.addEventListener("keydown", (event) => event.stopPropagation());
    }

    async made(noise) {
      const { image } = await this.network.run({ noise: { data: noise, dims: [1, this.data.latent] } });
      return image.data;
    }

    show(one, image) {
      one.show((colour) => image.forEach((value, k) => colour(k, grey(value), grey(value), grey(value))));
    }

    async fresh() {
      const { latent } = this.data;
      this.noise = CORNERS.map((_, k) => normal(1000 * this.seed + k, latent));
      this.seed += 1;
      this.chart([]);
      for (const [k, noise] of this.noise.entries()) this.show(this.corners[k], await this.made(noise));
      await this.ask();
    }

    async work() {
      const [x, y] = [this.across, this.down].map(({ input }) => Number(input.value)), began = performance.now();
      const image = await this.made(between(this.noise, x, y));
      this.show(this.here, image);
      this.here.caption.textContent = "Between them.";
      this.said.textContent = `${Math.round(100 * x)} % to the right, ${Math.round(100 * y)} % down. `
        + `Drawn in ${Math.round(performance.now() - began)} ms.`;
    }

    // The whole way from left to right at the height of the other slider: how much the picture changes at each step.
    async go() {
      const y = Number(this.down.input.value), changes = [];
      let before = null;
      for (let step = 0; step <= STEPS; step++) {
        const image = await this.made(between(this.noise, step / STEPS, y));
        if (before) changes.push(image.reduce((sum, value, k) => sum + Math.abs(value - before[k]), 0) / image.length);
        this.show(this.here, image);
        this.across.input.value = step / STEPS;
        this.across.tell();
        before = image;
      }
      this.chart(changes);
      const mean = changes.reduce((sum, value) => sum + value) / STEPS, most = Math.max(...changes);
      this.said.textContent = `${STEPS} steps: a pixel changes by ${(50 * mean).toFixed(1)} % of the grey scale in the `
        + `mean step; the largest is ${(most / mean).toFixed(1)} times that. Where a walk jumps, one is much larger.`;
    }

    chart(changes) {
      const context = this.steps.getContext("2d"), { width, height } = this.steps, most = Math.max(...changes, 1e-9);
      context.fillStyle = "#fff";
      context.fillRect(0, 0, width, height);
      if (!changes.length) return;
      const wide = width / changes.length, room = 0.9 * height / most;
      context.fillStyle = "#0072b2";
      changes.forEach((value, k) => context.fillRect(k * wide + 1, height - value * room, wide - 2, value * room));
      const mean = changes.reduce((sum, value) => sum + value) / changes.length;
      context.strokeStyle = "#222";
      context.setLineDash([8, 6]);
      context.beginPath();
      context.moveTo(0, height - mean * room);
      context.lineTo(width, height - mean * room);
      context.stroke();
    }
  }

  covlibLive.kinds.walk = (box, network) => new Walk(box, network).fresh();
})();
