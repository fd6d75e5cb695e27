"""Who reads images in batches of 256: we and our peers, each in its own format and in the way its documents show.

A side returns the work, which counts the images: one epoch, from opening the iterator to the last batch, so that the
start of workers is in it. Small images are decoded and stacked; of full-size ones a random part is cut, scaled to 224
pixels and flipped by chance. Peers whose format holds bytes decode with torchvision's JPEG decoder; the others as they
do by themselves.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from _writers import CHUNK_BYTES, Job, Side, files_of, tars_of

BATCH = 256
SIDE_PX = 224
AREA = (0.25, 1.0)  # of a random crop, as a share of the image


# --- ours: the one place that knows the loader


def our_epoch(job: Job, data: str = "tars") -> Callable[[], Iterator[Any]]:
    """Open the dataset and its loader; return what begins an epoch and yields the images of each batch."""
    from curate.datasets.dataset import open_dataset
    from train.data.loader import Loader

    loader = Loader(
        open_dataset(job.data / data), batch_size=BATCH, image_size=SIDE_PX if is_full(job) else 64, seed=0,
        augment=is_full(job), workers=job.workers, cache="none",
    )  # fmt: skip
    return lambda: (batch.images for batch in loader.epoch(0))


def ours(job: Job) -> Callable[[], object]:
    """Our loader over our shards, in an order that is random over the whole set."""
    begin = our_epoch(job)
    return lambda: sum(len(images) for images in begin())


def is_full(job: Job) -> bool:
    """Whether the images are full-size ones, to be cropped."""
    return job.data.name == "full"


# --- decoding


def _crop_tensor(image: Any) -> Any:
    return _tensor_crop()(image)


def _tensor_crop() -> Any:
    global _kept
    if _kept is None:
        from torchvision.transforms import v2

        _kept = v2.Compose(
            [v2.RandomResizedCrop(SIDE_PX, scale=AREA, antialias=True), v2.RandomHorizontalFlip()]
        )
    return _kept


_kept: Any = None


def decode(data: bytes, full: bool) -> Any:
    """Return a uint8 tensor by torchvision's JPEG decoder, cropped if wanted."""
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg

    image = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=ImageReadMode.RGB)
    return _crop_tensor(image) if full else image


def pil_transform(full: bool) -> Any:
    """Return what turns a Pillow image into a uint8 tensor."""
    from torchvision import transforms

    crop = [transforms.RandomResizedCrop(SIDE_PX, scale=AREA), transforms.RandomHorizontalFlip()]
    return transforms.Compose([*(crop if full else []), transforms.PILToTensor()])


def _rgb(image: Any) -> Any:
    return image.convert("RGB")


def one_thread() -> None:
    """Leave one core to each worker: torch's own threads would take both."""
    import torch

    torch.set_num_threads(1)


# --- peers


def web_loader(job: Job) -> Callable[[], object]:
    """`WebDataset`, shuffled within 1,000 samples, and `WebLoader`."""
    import webdataset

    one_thread()
    data = webdataset.WebDataset(tars_of(job), shardshuffle=100, empty_check=False).shuffle(1000)
    if is_full(job):
        data = data.decode("pilrgb").to_tuple("jpg", "cls").map_tuple(pil_transform(True), int)
    else:
        data = data.decode("torchrgb8").to_tuple("jpg", "cls")
    loader = webdataset.WebLoader(data.batched(BATCH), batch_size=None, num_workers=job.workers)
    return lambda: sum(len(images) for images, _ in loader)


def image_folder(job: Job) -> Callable[[], object]:
    """torchvision's `ImageFolder` and torch's `DataLoader`."""
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder

    one_thread()
    data = ImageFolder(os.path.realpath(job.data / "pool"), pil_transform(is_full(job)))
    loader = DataLoader(data, batch_size=BATCH, shuffle=True, num_workers=job.workers)
    return lambda: sum(len(images) for images, _ in loader)


def litdata(job: Job) -> Callable[[], object]:
    """`StreamingDataset`, shuffled, and `StreamingDataLoader`."""
    from litdata import StreamingDataLoader, StreamingDataset

    one_thread()
    full = is_full(job)

    class Images(StreamingDataset):
        def __getitem__(self, index: Any) -> Any:
            item = super().__getitem__(index)
            return decode(item["image"], full), item["label"]

    data = Images(str(job.data / "litdata"), shuffle=True)
    loader = StreamingDataLoader(data, batch_size=BATCH, num_workers=job.workers)
    return lambda: sum(len(images) for images, _ in loader)


def mosaicml(job: Job) -> Callable[[], object]:
    """`StreamingDataset`, shuffled, and torch's `DataLoader`."""
    import streaming
    from torch.utils.data import DataLoader

    one_thread()
    streaming.base.util.clean_stale_shared_memory()
    full = is_full(job)

    class Images(streaming.StreamingDataset):
        def __getitem__(self, index: Any) -> Any:
            item = super().__getitem__(index)
            return decode(item["image"], full), item["label"]

    data = Images(local=str(job.data / "mds"), shuffle=True, batch_size=BATCH)
    loader = DataLoader(data, batch_size=BATCH, num_workers=job.workers)
    return lambda: sum(len(images) for images, _ in loader)


def _decoded(full: bool, rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
    return {"image": [decode(image["bytes"], full) for image in rows["image"]], "label": rows["label"]}


def hugging_face(job: Job) -> Callable[[], object]:
    """`load_from_disk`, and torch's `DataLoader` with a transform."""
    import datasets
    from torch.utils.data import DataLoader

    one_thread()
    data = datasets.load_from_disk(str(job.data / "hf")).with_transform(partial(_decoded, is_full(job)))
    loader = DataLoader(data, batch_size=BATCH, shuffle=True, num_workers=job.workers)
    return lambda: sum(len(batch["image"]) for batch in loader)


# --- limits


def _all_bytes(job: Job) -> list[bytes]:
    return [path.read_bytes() for path, _ in files_of(job)]


def _bare(job: Job, work: Callable[[bytes], Any]) -> Callable[[], object]:
    one_thread()
    data = _all_bytes(job)
    work(data[0])  # so that what is made at the first call is there

    def run() -> int:
        with ThreadPoolExecutor(job.workers) as pool:
            return sum(
                pool.map(lambda lot: len([work(one) for one in lot]), [data[i::64] for i in range(64)])
            )

    return run


def bare_torchvision(job: Job) -> Callable[[], object]:
    """torchvision's decoder (and crop) over bytes in memory, no batches."""
    return _bare(job, partial(decode, full=is_full(job)))


def bare_simplejpeg(job: Job) -> Callable[[], object]:
    """simplejpeg's decoder, which ours uses (and torchvision's crop), over bytes in memory, no batches."""
    import simplejpeg
    import torch

    full = is_full(job)

    def work(data: bytes) -> Any:
        pixels = simplejpeg.decode_jpeg(data, "RGB")
        return _crop_tensor(torch.from_numpy(pixels).permute(2, 0, 1)) if full else pixels

    return _bare(job, work)


def bare_pillow(job: Job) -> Callable[[], object]:
    """Pillow's decoder (and torchvision's crop of it) over bytes in memory, no batches."""
    import io

    from PIL import Image

    transform = pil_transform(is_full(job))
    return _bare(job, lambda data: transform(Image.open(io.BytesIO(data)).convert("RGB")))


SIDES: dict[str, Side] = {
    "curate loader": ours,
    "webdataset WebLoader": web_loader,
    "torchvision ImageFolder": image_folder,
    "litdata StreamingDataset": litdata,
    "MosaicML StreamingDataset": mosaicml,
    "Hugging Face datasets": hugging_face,
    "bare simplejpeg, in memory": bare_simplejpeg,
    "bare torchvision, in memory": bare_torchvision,
    "bare Pillow, in memory": bare_pillow,
}


def prepare_peers(data: Path) -> None:
    """Write the images once in the format of each peer that is installed."""
    job = Job(data, data / "unused", 1)
    for write in (_prepare_litdata, _prepare_mosaicml, _prepare_hugging_face):
        with suppress(ImportError):  # its side will say that it is not installed
            write(job)


def _as_item(pair: tuple[Path, int]) -> dict[str, Any]:
    return {"image": pair[0].read_bytes(), "label": pair[1]}


def _prepare_litdata(job: Job) -> None:
    from litdata import optimize

    out = str(job.data / "litdata")
    optimize(fn=_as_item, inputs=files_of(job), output_dir=out, chunk_bytes=CHUNK_BYTES, num_workers=2)


def _prepare_mosaicml(job: Job) -> None:
    from _writers import _to_mds

    _to_mds(map(_as_item, files_of(job)), job.data / "mds")


def _prepare_hugging_face(job: Job) -> None:
    import datasets

    datasets.disable_progress_bars()
    rows = {"image": [{"bytes": p.read_bytes(), "path": None} for p, _ in files_of(job)],
            "label": [label for _, label in files_of(job)]}  # fmt: skip
    kinds = datasets.Features({"image": datasets.Image(decode=False), "label": datasets.Value("int64")})
    datasets.Dataset.from_dict(rows, features=kinds).save_to_disk(job.data / "hf")
