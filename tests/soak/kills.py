"""Kill and resume: download, export, synthesis, training and sweep, killed at random moments until they are done.

    python tests/soak/kills.py --kills 200

Each work is done once undisturbed, for the reference. Then it is started, killed with SIGKILL after a random part of
the time that the reference took, started again in the same place, and so on until it ends; what it leaves must be the
reference, file by file, with nothing beside it. After each kill, what may only appear whole is looked at. One line a
work says how many kills it took; exit status 1 if anything was lost, doubled or left over.
"""

import argparse
import functools
import hashlib
import http.server
import json
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "helpers"), str(HERE.parents[1])]

import numpy as np
import tiny_gan
import tiny_study
import torch
import yaml

from covbook import export
from covbook.chapters.cyclegan import experiment, translate
from covbook.datasets import download, sources
from covbook.runner.studies import sweep
from covlib.papers.cyclegan import method as cyclegan
from covlib.seeding import rng
from covlib.training.checkpoints import read_weights
from covlib.training.fit import fit

FORK = multiprocessing.get_context("fork")
BIG = hashlib.shake_256(b"kills").digest(6_000_000)


# ---- the works: each is called with the folder to work in ------------------------------------------------------------


class _Slow(http.server.BaseHTTPRequestHandler):
    """Serves BIG with ETag and Range, slowly enough to be cut."""

    def do_GET(self):
        wanted = self.headers.get("Range")
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        if start >= len(BIG):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(BIG) - 1}/{len(BIG)}")
        self.send_header("Content-Length", str(len(BIG) - start))
        self.send_header("ETag", '"kills"')
        self.end_headers()
        try:
            for at in range(start, len(BIG), 1 << 17):
                self.wfile.write(BIG[at:at + (1 << 17)])
                time.sleep(0.01)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the client was killed
        self.close_connection = True

    def log_message(self, *args):
        pass


def _registry(folder: Path, port: int) -> Path:
    file = {"url": f"http://127.0.0.1:{port}/big.bin", "filename": "big.bin", "size": len(BIG),
            "size_note": "known", "sha256": hashlib.sha256(BIG).hexdigest(), "checksum_note": "ours"}
    entry = {"title": "Kills", "what": {"modality": "CT", "counts": "1", "masks": "none", "labels": "none"},
             "homepage": "https://example.org", "access": "download", "files": [file],
             "licence": {"name": "CC0", "url": None, "note": "free"},
             "citation": {"key": "key2020", "text": "Somebody", "doi": None}, "chapters": ["01_data"],
             "layout": "plain", "size_note": "6 MB"}
    path = folder / "registry.yaml"
    path.write_text(yaml.safe_dump({"version": 1, "sources": {"kills": entry}}))
    return path


def get(registry: Path, folder: Path) -> None:
    download.PAUSE = 0.01
    sources.get("kills", folder / "set", path=registry)


def export_set(folder: Path) -> None:
    pictures = rng(0, "kills").uniform(-1, 1, (60, 48, 48)).astype(np.float32)
    export.export_set(folder / "set", pictures, datasheet={"method": "noise", "seed": 0, "checkpoint": "none",
                                                           "limits": "for tests"})


CONFIG = cyclegan.Config.for_profile("paper", {"image_size": 32, "width": 4, "d_width": 4, "blocks": 1, "batch_size": 2,
                                               "epochs": 1, "pool_size": 0, "sources": ("normal",),
                                               "patients": 24, "covid_patients": 8})


def synthesise(folder: Path) -> None:
    method = cyclegan.CycleGAN(CONFIG, 4, seed=3)
    slices = experiment.load_images(CONFIG, "phantom", seed=0)
    translate.translate_set(method, translate.sources_from(slices, "normal"), folder / "set", model="m", batch=2,
                               progress=False)


def train(folder: Path) -> None:
    pause = lambda call, losses: time.sleep(0.01)
    fit(tiny_gan.TinyGAN(steps=tiny_gan.LONG, on_step=pause), {"image": tiny_gan.images()}, folder / "run",
        **tiny_gan.OPTIONS)


def study(folder: Path) -> None:
    sweep(tiny_study.STUDY, profile="smoke", seeds=[0, 1], arms=["plain", "noisy", "slow"], out=folder / "study",
          device="cpu", overrides={"steps": 6}, say=lambda text: None)


# ---- what they leave -------------------------------------------------------------------------------------------------


def left(folder: Path) -> dict[str, str]:
    """Digest of each file below ``folder``: of the tensors of weights, of a result without clock and machine."""
    found = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        if "/checkpoints/" in f"/{name}" and path.suffix == ".pt":
            continue  # resume state; which one is the last depends on where the run was cut
        whole = hashlib.sha256()
        if path.suffix == ".safetensors":
            for key, tensor in sorted(read_weights(path)[0].items()):
                whole.update(key.encode() + tensor.numpy().tobytes())
        elif path.parent.name == "study" and path.suffix == ".json":
            whole.update(json.dumps(json.loads(path.read_text())["metrics"], sort_keys=True).encode())
        else:
            whole.update(path.read_bytes())
        found[name] = whole.hexdigest()
    return found


def whole_or_absent(folder: Path, reference: dict[str, str]) -> list[str]:
    """Of a set that appears at once: what is there must be all of it."""
    there = {name: digest for name, digest in left(folder).items() if name.startswith("set/")}
    return [] if not there or there == {k: v for k, v in reference.items() if k.startswith("set/")} else ["half a set"]


WORKS = {"download": (None, True), "export": (export_set, True), "synthesis": (synthesise, False),
         "training": (train, False), "sweep": (study, False)}


def _child(work, folder: Path) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)
    for stream in (1, 2):  # what many processes say at once helps nobody
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    work(folder)


def soak(name: str, work, at_once: bool, kills: int, seed: int, base: Path) -> dict:
    """Do ``work`` until it has been killed ``kills`` times and has ended; returns what came of it."""
    draw, killed, rounds, wrong = rng(seed, "kills", name), 0, 0, []
    began = time.monotonic()
    (base / "reference").mkdir(parents=True)
    done = FORK.Process(target=_child, args=(work, base / "reference"))
    done.start()
    done.join()
    if done.exitcode:
        return {"work": name, "wrong": [f"the reference itself failed with {done.exitcode}"], "kills": 0, "rounds": 0}
    span, reference = time.monotonic() - began, left(base / "reference")
    while killed < kills and not wrong:
        folder = base / f"round{rounds}"
        folder.mkdir()
        rounds += 1
        for _ in range(60):
            child = FORK.Process(target=_child, args=(work, folder))
            child.start()
            child.join(draw.uniform(0, span) if killed < kills else None)
            if child.is_alive():
                os.kill(child.pid, signal.SIGKILL)
                child.join()
                killed += 1
                wrong += whole_or_absent(folder, reference) if at_once else []
                continue
            if child.exitcode:
                wrong.append(f"round {rounds}: failed with {child.exitcode} after {killed} kills")
            break
        else:
            wrong.append(f"round {rounds}: not done after 60 starts")
        wrong += compare(left(folder), reference, rounds)
        if not wrong:
            shutil.rmtree(folder)
    return {"work": name, "kills": killed, "rounds": rounds, "wrong": wrong,
            "seconds": round(time.monotonic() - began, 1)}


def compare(found: dict[str, str], reference: dict[str, str], number: int) -> list[str]:
    """What is missing, left over or different, in words."""
    wrong = [f"round {number}: {name} is missing" for name in sorted(set(reference) - set(found))]
    wrong += [f"round {number}: {name} is left over" for name in sorted(set(found) - set(reference))]
    return wrong + [f"round {number}: {name} differs" for name in sorted(reference) if found.get(name, reference[name])
                    != reference[name]]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200, help="in all, shared between the works (default 200)")
    parser.add_argument("--works", nargs="+", choices=list(WORKS), default=list(WORKS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the outcome there too")
    given = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that children are ended and folders removed
    outcome = []
    with tempfile.TemporaryDirectory() as temporary:
        base = Path(temporary)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Slow)
        serving = FORK.Process(target=server.serve_forever, daemon=True)
        serving.start()
        works = {**WORKS, "download": (functools.partial(get, _registry(base, server.server_port)), True)}
        try:
            for k, name in enumerate(given.works):
                share = given.kills // len(given.works) + (k < given.kills % len(given.works))
                result = soak(name, *works[name], share, given.seed, base / name)
                outcome.append(result)
                print(f"{name:10s} {result['kills']:4d} kills, {result['rounds']:3d} times to the end, "
                      f"{result.get('seconds', 0):6.1f} s: "
                      f"{'; '.join(result['wrong'][:3]) or 'nothing lost or doubled'}", flush=True)
        finally:
            for child in multiprocessing.active_children():
                child.kill()
    if given.json:
        given.json.write_text(json.dumps(outcome, indent=2) + "\n")
    return 1 if any(result["wrong"] for result in outcome) else 0


if __name__ == "__main__":
    sys.exit(main())
