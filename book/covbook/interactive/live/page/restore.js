// A small volume made noisy or coarse by a slider, and what the network makes of it: errors in HU and PSNR beside its
// input's. The denoiser starts at non-local means, which are computed here as covlib does.
(function () {
  const { latest, element, button, range, picture, change, save, uniform, unpack } = covlibLive.tools;
  const WATER = 0.0193;  // attenuation per mm, as in covlib.papers.cgan3d.conditions
  const DOSES = [20, 40, 80, 160, 320, 640, 1280], TASKS = { denoise: "Noise", depixelate: "Pixels" };
  const FULL = 200;  // HU of error that has full colour

  // ---- conditions ------------------------------------------------------------------------------------------------

  // log(n!) by Stirling's series, exact to nine digits from 10 on.
  function logFactorial(n) {
    if (n < 10) return Math.log([1, 1, 2, 6, 24, 120, 720, 5040, 40320, 362880][n]);
    const m = n + 1;
    return (m - 0.5) * Math.log(m) - m + 0.5 * Math.log(2 * Math.PI) + 1 / (12 * m) - 1 / (360 * m ** 3);
  }

  // A Poisson number: by multiplication where few are expected, else by Hoermann's transformed rejection (PTRS, 1993).
  function poisson(mean, draw) {
    if (mean < 10) {
      const end = Math.exp(-mean);
      let count = 0;
      for (let product = draw(); product > end; product *= draw()) count += 1;
      return count;
    }
    const root = Math.sqrt(mean), b = 0.931 + 2.53 * root, a = -0.059 + 0.02483 * b;
    const inverse = 1.1239 + 1.1328 / (b - 3.4), edge = 0.9277 - 3.6224 / (b - 2);
    for (;;) {
      const u = draw() - 0.5, v = draw(), us = 0.5 - Math.abs(u), k = Math.floor((2 * a / us + b) * u + mean + 0.43);
      if (us >= 0.07 && v <= edge) return k;
      if (k < 0 || (us < 0.013 && v > us)) continue;
      if (Math.log(v * inverse / (a / (us * us) + b)) <= k * Math.log(mean) - mean - logFactorial(k)) return k;
    }
  }

  const counts = (hu, photons, path) => photons * Math.exp(-WATER * (1 + hu / 1000) * path);
  const backToHu = (seen, photons, path) => 1000 * (-Math.log(Math.max(seen, 0.5) / photons) / (WATER * path) - 1);

  const noisy = (volume, photons, path, draw) =>
    volume.map((hu) => Math.round(backToHu(poisson(counts(hu, photons, path), draw), photons, path)));

  // The first voxel of each cube of so many voxels, in all of it.
  function pixelated(volume, [depth, height, width], factor) {
    const found = new Float32Array(volume.length);
    for (let z = 0, k = 0; z < depth; z++)
      for (let y = 0; y < height; y++)
        for (let x = 0; x < width; x++, k++)
          found[k] = volume[((z - z % factor) * height + y - y % factor) * width + x - x % factor];
    return found;
  }

  // ---- non-local means, as scikit-image's fast form has them: patches of an even side, an exponential of lines -------

  function fastExp(x) {
    const power = x / Math.LN2 - 60801 / 1048576, whole = Math.floor(power);
    return 2 ** whole * (1 + power - whole);
  }

  // image with its inner voxels mirrored beyond its faces, the outermost ones not repeated.
  function mirrored(image, [depth, height, width], margin) {
    const inside = (k, n) => (k < 0 ? -k : k >= n ? 2 * n - 2 - k : k), wide = width + 2 * margin;
    const high = height + 2 * margin, deep = depth + 2 * margin, found = new Float64Array(deep * high * wide);
    for (let z = 0, k = 0; z < deep; z++)
      for (let y = 0; y < high; y++)
        for (let x = 0; x < wide; x++, k++)
          found[k] = image[(inside(z - margin, depth) * height + inside(y - margin, height)) * width
                           + inside(x - margin, width)];
    return { values: found, sides: [deep, high, wide] };
  }

  // values where each is the sum of itself, `before` of those before it and `after` behind, along one axis in place.
  function summed(values, sides, axis, before, after) {
    const stride = [sides[1] * sides[2], sides[2], 1][axis], n = sides[axis], line = new Float64Array(n);
    for (let start = 0; start < values.length; start++) {
      if (Math.floor(start / stride) % n) continue;
      for (let k = 0; k < n; k++) line[k] = values[start + k * stride];
      for (let k = before; k < n - after; k++) {
        let sum = 0;
        for (let j = k - before; j <= k + after; j++) sum += line[j];
        values[start + k * stride] = sum;
      }
    }
  }

  function smoothed(image, sides, strength, patch, reach) {
    const half = Math.floor(patch / 2), margin = half + reach + 1, scale = strength ** 2 * patch ** 3;
    const { values, sides: wide } = mirrored(image, sides, margin), length = values.length;
    const stride = [wide[1] * wide[2], wide[2], 1];
    const total = new Float64Array(length), weights = new Float64Array(length), apart = new Float64Array(length);
    for (let dz = -reach; dz <= reach; dz++)
      for (let dy = -reach; dy <= reach; dy++)
        for (let dx = -reach; dx <= reach; dx++) {
          const shift = dz * stride[0] + dy * stride[1] + dx;
          if (shift < 0) continue;  // each pair of voxels is met once
          const first = Math.max(0, -shift), last = Math.min(length, length - shift);
          for (let k = first; k < last; k++) apart[k] = (values[k] - values[k + shift]) ** 2 - 2;
          for (let axis = 0; axis < 3; axis++) summed(apart, wide, axis, half - 1, half);
          for (let k = first; k < last; k++) {
            const far = Math.max(0, apart[k]) / scale;
            if (far > 5) continue;
            const weight = fastExp(-far);
            total[k] += weight * values[k + shift];
            weights[k] += weight;
            if (!shift) continue;
            total[k + shift] += weight * values[k];
            weights[k + shift] += weight;
          }
        }
    const found = new Float32Array(image.length);
    for (let z = 0, k = 0; z < sides[0]; z++)
      for (let y = 0; y < sides[1]; y++)
        for (let x = 0; x < sides[2]; x++, k++) {
          const at = (z + margin) * stride[0] + (y + margin) * stride[1] + x + margin;
          found[k] = total[at] / weights[at];
        }
    return found;
  }

  // Of a volume in HU, on Anscombe's square root of the photons' counts, where the noise is equally strong everywhere.
  function nonLocalMeans(volume, sides, { photons, path, strength, patch, reach }) {
    const root = Float32Array.from(volume, (hu) => 2 * Math.sqrt(counts(hu, photons, path) + 3 / 8));
    return smoothed(root, sides, strength, patch, reach)
      .map((value) => backToHu((value / 2) ** 2 - 1 / 8, photons, path));
  }

  // As the chapter has it: slice by slice, then their mean.
  function psnr(volume, original, [low, high], [depth, height, width]) {
    const clip = (value) => Math.max(low, Math.min(high, value)), size = height * width;
    let total = 0;
    for (let z = 0; z < depth; z++) {
      let sum = 0;
      for (let k = z * size; k < (z + 1) * size; k++) sum += (clip(volume[k]) - clip(original[k])) ** 2;
      total += 10 * Math.log10((high - low) ** 2 * size / sum);
    }
    return total / depth;
  }

  // ---- the section -----------------------------------------------------------------------------------------------

  class Restorer {
    constructor(box, networks, volume, data) {
      Object.assign(this, { box, networks, data, original: volume, sides: data.shape, slice: data.slice });
      this.task = Object.keys(networks)[0];
      this.ask = latest(() => this.work());
      this.build();
    }

    build() {
      const { data, networks, sides: [depth, , side] } = this, name = data.title, pictures = {};
      const titles = { original: "The patient's slice.", given: "The slice as the network is given it.",
                       restored: `What ${name} makes of it.`, before: "Error of what it is given.",
                       after: "Error of what it makes." };
      for (const [key, title] of Object.entries(titles))
        pictures[key] = picture(title, side, data.virtual || key !== "original");
      Object.assign(this, { pictures });
      const tasks = element("fieldset", {}, element("legend", {}, "Spoil the scan by"));
      Object.keys(networks).forEach((task, k) => {
        const input = element("input", { type: "radio", name: `${data.name}-task`, value: task, checked: !k,
                                         "data-first": !k, onchange: () => this.choose(task) });
        tasks.append(element("label", {}, input, TASKS[task]));
      });
      const learnt = DOSES.reduce((best, dose, k) => (Math.abs(dose - data.means.photons)
        < Math.abs(DOSES[best] - data.means.photons) ? k : best), 0);
      this.dose = range("Photons a voxel", { min: 0, max: DOSES.length - 1, value: learnt }, (k) => `${DOSES[k]}`,
                        () => this.ask());
      this.factor = range("Voxels a side of a pixel", { min: 1, max: 4, value: 2 }, String, () => this.ask());
      this.level = range("Slice", { min: 1, max: depth, value: this.slice + 1 }, (k) => `${k} of ${depth}`, (k) => {
        this.slice = k - 1;
        this.draw();
      });
      this.said = element("p", { role: "status" });
      const figures = (...keys) => keys.map((key) => pictures[key].figure);
      this.box.append(
        element("div", { class: "covlib-live-row" }, tasks, this.dose.label, this.factor.label, this.level.label),
        element("div", { class: "covlib-live-pictures covlib-live-three" },
                ...figures("original", "given", "restored", "before", "after"),
                element("p", {}, element("small", {}, `A piece of a ${data.who}, ${this.sides.join(" x ")} voxels in four `
                  + `blocks. Window: level ${String(data.window[0]).replace("-", "\u2212")}, width ${data.window[1]} HU.`))),
        element("div", { class: "covlib-live-row" },
                button("New noise", () => { this.seed += 1; this.ask(); }),
                button("Save the pictures", () => save(["original", "given", "restored", "before", "after"]
                  .map((key) => pictures[key].canvas), data.name))),
        this.said);
      this.seed = 1;
      this.shown();
      this.box.addEventListener("keydown", (event) => event.stopPropagation());
    }

    shown() {
      this.dose.label.hidden = this.task !== "denoise";
      this.factor.label.hidden = this.task !== "depixelate";
    }

    choose(task) {
      this.task = task;
      this.shown();
      return this.ask();
    }

    spoilt() {
      const { original, sides, data: { means } } = this;
      if (this.task === "depixelate") return pixelated(original, sides, Number(this.factor.input.value));
      return noisy(original, DOSES[Number(this.dose.input.value)], means.path, uniform(this.seed));
    }

    async work() {
      const network = this.networks[this.task], given = this.spoilt(), began = performance.now();
      const made = await restore(network, given, this.data.means);
      Object.assign(this, { given, made, taken: performance.now() - began });
      this.draw();
      this.tell();
    }

    draw() {
      const { original, given, made, pictures, sides: [, height, width], data: { window: [level, wide] } } = this;
      if (!made) return;
      const first = this.slice * height * width, size = height * width;
      const shown = (key, volume) => pictures[key].show((colour) => {
        for (let k = 0; k < size; k++) {
          const value = Math.max(0, Math.min(255, Math.round(255 * ((volume[first + k] - level) / wide + 0.5))));
          colour(k, value, value, value);
        }
      });
      const wrong = (key, volume, title) => {
        pictures[key].show((colour) => {
          for (let k = 0; k < size; k++) change(colour, k, volume[first + k] - original[first + k], FULL);
        });
        pictures[key].caption.textContent = `Error of ${title}: blue darker, vermilion brighter, full colour at ${FULL} HU.`;
      };
      shown("original", original);
      shown("given", given);
      shown("restored", made);
      pictures.given.caption.textContent = this.task === "denoise" ? "With noise." : "In coarse pixels.";
      wrong("before", given, "what it is given");
      wrong("after", made, "what it makes");
    }

    tell() {
      const { original, given, made, data } = this, of = (volume) => psnr(volume, original, data.scale, data.shape);
      const [before, after] = [of(given), of(made)], learnt = `It learnt at ${data.means.photons} photons.`;
      const same = !Number.isFinite(before), gain = after - before;
      this.said.textContent = `PSNR, mean over the slices of the piece: ${same ? "infinite" : `${before.toFixed(1)} dB`} given, `
        + `${Number.isFinite(after) ? `${after.toFixed(1)} dB` : "infinite"} restored`
        + (same ? ", which had nothing to restore. " : `: ${Math.abs(gain).toFixed(1)} dB ${gain < 0 ? "lost" : "gained"}. `)
        + (this.task === "denoise" ? learnt : "It learnt with pixels of 2 voxels a side.")
        + ` Restored in ${Math.round(this.taken)} ms.`;
    }
  }

  // What a network makes of a volume in HU, in whole HU.
  async function restore(network, given, means, noise = null) {
    const { inputs } = network.asset, dims = inputs.given, draw = uniform(7);
    const feeds = { given: { data: given, dims } };
    if (inputs.answer) feeds.answer = { data: nonLocalMeans(given, dims, means), dims };
    const count = inputs.noise.reduce((product, n) => product * n);
    feeds.noise = { data: noise ?? Float32Array.from({ length: count }, draw), dims: inputs.noise };
    return (await network.run(feeds)).restored.data;
  }

  covlibLive.kinds.restore = async (box, network) => {
    const { data, more } = network.asset, networks = { [data.task]: network };
    for (const [task, name] of Object.entries(more)) networks[task] = await covlibLive.open(name);
    const volume = Float32Array.from(await unpack(data.volume), (k) => data.low + data.step * k);
    const restorer = new Restorer(box, networks, volume, { ...data, name: network.asset.name });
    await restorer.ask();
  };
  Object.assign(covlibLive.kinds.restore, { nonLocalMeans, noisy, pixelated, psnr, restore, uniform });
})();
