"""What is known of each data source without reading it: sizes, licence, and what is downloaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lit_meta.utils.registry import Registry


@dataclass(frozen=True)
class Archive:
    """A file to download.

    Attributes:
        url: where it is.
        digest: ``"md5:..."`` or ``"sha256:..."`` of it; a download with another one is refused.
        folder: where it goes, below the folder of the data sets.
        unpack: ``"gz"`` (into one file), ``"zip"`` or ``"tar"`` (into the folder), or nothing.
        saved_as: its file name, where the address does not end in it.
    """

    url: str
    digest: str
    folder: str
    unpack: str = ""
    saved_as: str = ""

    @property
    def name(self) -> str:
        """Its file name."""
        return self.saved_as or self.url.rsplit("/", 1)[1]


@dataclass(frozen=True)
class Facts:
    """A source, described.

    Attributes:
        classes: how many there are.
        train: number of training samples; None where the publication leaves it open.
        test: number of test samples, likewise.
        shape: of one sample.
        licence: of the data, as their authors state it; `NOT_STATED` where they state none.
        homepage: where they come from.
        files: files or folders in the folder of the data sets, any of which holds the data; none if it needs no files.
        archives: what is downloaded; empty where the data have to be fetched by hand.
        megabytes: size of the download; None where it is not known.
        extra: of ``pip install 'lit-meta[...]'`` that reading it needs.
        licence_page: where the authors state the licence, or where we looked for a statement and found none, if that is not
            the homepage.
    """

    classes: int
    train: int | None
    test: int | None
    shape: tuple[int, ...]
    licence: str
    homepage: str
    files: tuple[str, ...] = ()
    archives: tuple[Archive, ...] = ()
    megabytes: int | None = None
    extra: str = ""
    licence_page: str = ""

    @property
    def licence_stated_at(self) -> str:
        """The page that the licence was read on."""
        return self.licence_page or self.homepage


# The page of the data names no licence (some ask for a citation): whether a use is allowed is for their authors to say.
NOT_STATED = "not stated"
# Nobody of us has seen the page.
SEE_PAGE = "see its page"
_OMNIGLOT = "https://github.com/brendenlake/omniglot"


def _idx(base: str, folder: str, *digests: str) -> tuple[Archive, ...]:
    names = [f"{part}-{kind}-ubyte.gz" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
    return tuple(
        Archive(base + name, f"md5:{digest}", folder, "gz") for name, digest in zip(names, digests, strict=True)
    )


def _plain(base: str, folder: str, unpack: str = "", **digests: str) -> tuple[Archive, ...]:
    return tuple(Archive(base + name, f"md5:{digest}", folder, unpack) for name, digest in digests.items())


_CIFAR = "https://www.cs.toronto.edu/~kriz/"
_ZENKE = "https://zenkelab.org/datasets/"

_CORE50 = {
    "core50_128x128.zip": "745f3373fed08d69343f1058ee559e13",
    "batches_filelists.zip": "e3297508a8998ba0c99a83d6b36bde62",
    "paths.pkl": "b568f86998849184df3ec3465290f1b0",
    "LUP.pkl": "33afc26faa460aca98739137fdfa606e",
    "labels.pkl": "281c95774306a2196f4505f22fd60ab1",
    "labels2names.pkl": "557d0b9f0ec32765ccea65624aa51b3b",
}

# fmt: off
CATALOG: dict[str, Facts] = {
    "cifar10": Facts(
        10, 45_000, 6_000, (3, 32, 32), NOT_STATED, "https://www.cs.toronto.edu/~kriz/cifar.html",
        ("cifar10.npz", "cifar-10-batches-py"),
        _plain(_CIFAR, "", "tar", **{"cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a"}),
        170,
    ),
    "cifar100": Facts(
        100, 50_000, 10_000, (3, 32, 32), NOT_STATED, "https://www.cs.toronto.edu/~kriz/cifar.html",
        ("cifar-100-python",),
        _plain(_CIFAR, "", "tar", **{"cifar-100-python.tar.gz": "eb9058c3a382ffc7106e4002c42a8d85"}),
        169,
    ),
    "clear10": Facts(
        11, None, None, (3, 64, 64), NOT_STATED, "https://clear-benchmark.github.io", ("clear10",),
        licence_page="https://github.com/linzhiqiu/continual-learning",
    ),
    "core50": Facts(
        50, 119_894, 44_972, (3, 128, 128), "CC BY 4.0", "https://vlomonaco.github.io/core50", ("core50",),
        tuple(
            Archive(
                ("http://bias.csr.unibo.it/maltoni/download/core50/" if "128" in name else
                 "https://vlomonaco.github.io/core50/data/") + name,
                f"md5:{digest}", "core50", "zip" if name.endswith("zip") else "",
            )
            for name, digest in _CORE50.items()
        ),
        licence_page="https://github.com/vlomonaco/core50/blob/master/LICENSE",
    ),
    "cub200": Facts(
        200, 5_994, 5_794, (3, 64, 64), "non-commercial research", "https://www.vision.caltech.edu/datasets/cub_200_2011/",
        ("CUB_200_2011",),
        (Archive("https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
                 "md5:97eceeb196236b17998738112f37df78", "", "tar"),),
        1_151,
    ),
    "digits": Facts(10, 1_438, 359, (1, 8, 8), "CC BY 4.0", "https://archive.ics.uci.edu/dataset/80"),
    "dvs-gesture": Facts(
        11, None, None, (5, 20, 20), "CC BY 4.0", "https://research.ibm.com/interactive/dvsgesture/", ("DvsGesture",),
    ),
    "emnist-letters": Facts(
        26, 124_800, 20_800, (1, 28, 28), NOT_STATED, "https://www.nist.gov/itl/products-and-services/emnist-dataset",
        ("EMNIST/raw",),
        (Archive("https://biometrics.nist.gov/cs_links/EMNIST/gzip.zip", "md5:58c8d27c78d21e728a6bc7b3cc06412e",
                 "EMNIST/raw", "zip"),),
        562,
    ),
    "fashion-mnist": Facts(
        10, 60_000, 10_000, (1, 28, 28), "MIT", "https://github.com/zalandoresearch/fashion-mnist", ("FashionMNIST/raw",),
        _idx("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/", "FashionMNIST/raw",
             "8d4fb7e6c68d591d4c3dfef9ec88bf0d", "25c81989df183df01b3e8a0aad5dffbe",
             "bef4ecab320f06d8554ea6380940ec79", "bb300cfdad3c16e7a12a480ee83cd310"),
        31,
    ),
    "fsdd": Facts(
        10, 2_700, 300, (1, 30, 30), "CC BY-SA 4.0", "https://github.com/Jakobovski/free-spoken-digit-dataset",
        ("fsdd/recordings",), extra="audio",
    ),
    "kmnist": Facts(
        10, 60_000, 10_000, (1, 28, 28), "CC BY-SA 4.0", "http://codh.rois.ac.jp/kmnist/", ("KMNIST/raw",),
        _idx("http://codh.rois.ac.jp/kmnist/dataset/kmnist/", "KMNIST/raw",
             "bdb82020997e1d708af4cf47b453dcf7", "e144d726b3acfaa3e44228e80efcd344",
             "5c965bf0a639b31b8f53240b1b52f4d7", "7320c461ea6c1c855c0b718fb2a4b134"),
        21,
    ),
    "math-greek": Facts(
        46, None, None, (1, 45, 45), SEE_PAGE, "https://www.science.org/doi/10.1126/sciadv.adi2947", ("MathGreek",),
    ),
    "mnist": Facts(
        10, 60_000, 10_000, (1, 28, 28), "CC BY-SA 3.0", "https://github.com/cvdfoundation/mnist", ("MNIST/raw",),
        _idx("https://ossci-datasets.s3.amazonaws.com/mnist/", "MNIST/raw",
             "f68b3c2dcbeaaa9fbdd348bbdeb94873", "d53e105ee54ea40749a09fcbcd1e9432",
             "9fb629c4189551a2d022fa330f9573f3", "ec29112dd5afa0611ce80d1b7f02629c"),
        12,
    ),
    "n-mnist": Facts(
        10, 60_000, 10_000, (10, 2, 34, 34), "CC BY-SA 4.0", "https://www.garrickorchard.com/datasets/n-mnist",
        ("NMNIST",),
        tuple(
            Archive(f"https://data.mendeley.com/public-files/datasets/468j46mzdv/files/{key}/file_downloaded",
                    f"md5:{digest}", "NMNIST", "zip", saved_as)
            for key, digest, saved_as in (
                ("39c25547-014b-4137-a934-9d29fa53c7a0", "20959b8e626244a1b502305a9e6e2031", "Train.zip"),
                ("05a4d654-7e03-4c15-bdfa-9bb2bcbea494", "69ca8762b2fe404d9b9bad1103e97832", "Test.zip"),
            )
        ),
        extra="events",
    ),
    "omniglot": Facts(26, 390, 130, (1, 28, 28), "MIT", _OMNIGLOT, ("omniglot/images",)),
    "omniglot-greek": Facts(24, 360, 120, (1, 28, 28), "MIT", _OMNIGLOT, ("omniglot/images/Greek",)),
    "omniglot-latin": Facts(26, 390, 130, (1, 28, 28), "MIT", _OMNIGLOT, ("omniglot/images/Latin",)),
    "shd": Facts(
        20, 8_156, 2_264, (20, 700), "CC BY 4.0", "https://zenkelab.org/resources/spiking-heidelberg-datasets-shd/",
        ("SHD",),
        _plain(_ZENKE, "SHD", "zip",
               **{"shd_train.h5.zip": "f3252aeb598ac776c1b526422d90eecb",
                  "shd_test.h5.zip": "1503a5064faa34311c398fb0a1ed0a6f"}),
        extra="events",
    ),
    "speech-commands": Facts(
        35, 84_843, 11_005, (1, 30, 30), "CC BY 4.0", "https://arxiv.org/abs/1804.03209", ("SpeechCommands",),
        (Archive("http://download.tensorflow.org/data/speech_commands_v0.02.tar.gz",
                 "sha256:af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58", "SpeechCommands", "tar"),),
        2_429, "audio",
    ),
    "ssc": Facts(
        35, 75_466, 20_382, (20, 700), "CC BY 4.0", "https://zenkelab.org/resources/spiking-heidelberg-datasets-shd/",
        ("SSC",),
        _plain(_ZENKE, "SSC", "zip",
               **{"ssc_train.h5.zip": "d102be95e7144fcc0553d1f45ba94170",
                  "ssc_test.h5.zip": "a35ff1e9cffdd02a20eb850c17c37748"}),
        extra="events",
    ),
    "strokes-latin": Facts(26, 390, 130, (20, 1, 28, 28), "MIT", _OMNIGLOT, ("omniglot/strokes/Latin",)),
    "svhn": Facts(
        10, 73_257, 26_032, (3, 32, 32), "non-commercial use", "http://ufldl.stanford.edu/housenumbers/",
        ("SVHN",),
        _plain("http://ufldl.stanford.edu/housenumbers/", "SVHN",
               **{"train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373", "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3"}),
        246,
    ),
    "tidigits": Facts(
        11, None, None, (1, 30, 30), "LDC user agreement", "https://catalog.ldc.upenn.edu/LDC93S10",
        ("tidigits",), extra="audio",
    ),
    "tiny-imagenet": Facts(
        200, 100_000, 10_000, (3, 64, 64), "non-commercial research", "http://cs231n.stanford.edu", ("tiny-imagenet-200",),
        _plain("http://cs231n.stanford.edu/", "", "zip", **{"tiny-imagenet-200.zip": "90528d7ca1a48142e341f4ef8d21d0de"}),
        248,
    ),
    "usps": Facts(
        10, 7_291, 2_007, (1, 16, 16), NOT_STATED, "https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/", ("USPS",),
        _plain("https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/multiclass/", "USPS",
               **{"usps.bz2": "ec16c51db3855ca6c91edd34d0e9b197", "usps.t.bz2": "8ea070ee2aca1ac39742fdd1ef5ed118"}),
        8,
        licence_page="https://web.stanford.edu/~hastie/StatLearnSparsity_files/DATA/zipcode.html",
    ),
}
# fmt: on


def facts_of(registry: Registry[Any], name: str) -> Facts | None:
    """What is known of a source without reading it; None where it says nothing.

    A source of another package is imported, and may have said it with `lit_meta.data.sources.base.described`.
    """
    if name in CATALOG:
        return CATALOG[name]
    return getattr(registry[name], "facts", None) if registry.is_foreign(name) else None
