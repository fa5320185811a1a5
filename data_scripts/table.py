"""The datasets, a row each: where their archives are, what is in them, how labels become classes.

Splits, classes and label maps are those the RNS release evaluates on, which are mmsegmentation's
(FoodSeg103 and CUB-200: the MESS benchmark's). Checksums are the published ones. Where none is publicly
known, `md5` is None and the SHA-256 of the first download is recorded beside the archive.
"""

from __future__ import annotations

from data_scripts.benchmark import Archive, Benchmark

_VOC = "https://thor.robots.ox.ac.uk/pascal/VOC"
_COCO = "http://images.cocodataset.org/zips"
_CALTECH = "https://data.caltech.edu/records"
_CITYSCAPES = "https://www.cityscapes-dataset.com/downloads/"
_ACDC = "https://acdc.vision.ee.ethz.ch/download"
_FOOD = "https://github.com/LARC-CMU-SMU/FoodSeg103-Benchmark-v1"
_TRAIN_VAL = {"train": "/train/", "val": "/val/"}
_WEATHER = ("fog", "night", "rain", "snow")


def _context(title: str, classes: str, rest: int, note: str) -> Benchmark:
    tar = Archive(
        "VOCtrainval_03-May-2010.tar",
        "1.3 GB",
        f"{_VOC}/voc2010/VOCtrainval_03-May-2010.tar",
        "da459979d0c395079b5c75ee67908abb",
    )
    masks = Archive(
        "pascal_context_trainval.tar.gz",
        "31 MB",
        "https://cs.stanford.edu/~roozbeh/pascal-context/trainval.tar.gz",
        "df034edb2c12aa7d33b42b20bb1796e3",
    )
    return Benchmark(
        title,
        (tar, masks),
        image=r"VOCdevkit/VOC2010/JPEGImages/([^/.]+)\.jpg",
        mask=r"trainval/([^/.]+)\.mat",
        classes=classes,
        lists={s: f"VOCdevkit/VOC2010/ImageSets/Main/{s}.txt" for s in ("train", "val")},
        read="matlab",
        rest=rest,
        note=note,
    )


def _coco(title: str, classes: str, note: str) -> Benchmark:
    maps = "stuffthingmaps_trainval2017.zip"
    archives = (
        Archive("train2017.zip", "19 GB", f"{_COCO}/train2017.zip", "cced6f7f71b7629ddf16f17bbcfab6b2"),
        Archive("val2017.zip", "0.8 GB", f"{_COCO}/val2017.zip", "442b8da7639aecaf257c1dceb8ba8c80"),
        Archive(
            maps, "0.7 GB", f"http://calvin.inf.ed.ac.uk/wp-content/uploads/data/cocostuffdataset/{maps}"
        ),
    )
    return Benchmark(
        title,
        archives,
        image=r"(?:train|val)2017/(\d+)\.jpg",
        mask=r"(?:train|val)2017/(\d+)\.png",
        classes=classes,
        folders={"train": "train2017/", "val": "val2017/"},
        rest=0 if classes == "coco_object" else 255,
        note=note,
    )


BENCHMARKS: dict[str, Benchmark] = {
    "voc2012": Benchmark(
        "PASCAL VOC 2012",
        (
            Archive(
                "VOCtrainval_11-May-2012.tar",
                "2.0 GB",
                f"{_VOC}/voc2012/VOCtrainval_11-May-2012.tar",
                "6cd6e144f989b92b3379bac3b3de84fd",
            ),
        ),
        image=r"VOCdevkit/VOC2012/JPEGImages/([^/.]+)\.jpg",
        mask=r"VOCdevkit/VOC2012/SegmentationClass/([^/.]+)\.png",
        classes="voc2012",
        lists={s: f"VOCdevkit/VOC2012/ImageSets/Segmentation/{s}.txt" for s in ("train", "val")},
        note="1,464 train and 1,449 val images; object borders (255) are ignored",
    ),
    "context60": _context(
        "PASCAL Context, 60 classes",
        "context60",
        0,
        "4,998 train and 5,105 val images (VOC 2010's own splits); 59 classes and background",
    ),
    "context59": _context(
        "PASCAL Context, 59 classes", "context59", 255, "as context60; background is ignored"
    ),
    "coco_object": _coco(
        "COCO-Object",
        "coco_object",
        "the 80 things of COCO-Stuff's maps; all else, unlabelled pixels too, is background",
    ),
    "coco_stuff": _coco("COCO-Stuff 164k, 171 classes", "coco_stuff", "unlabelled pixels are ignored"),
    "coco_stuff27": _coco(
        "COCO-Stuff 164k, 27 groups",
        "coco_stuff27",
        "all images, where papers on unsupervised segmentation take a curated part of them",
    ),
    "cityscapes": Benchmark(
        "Cityscapes",
        (
            Archive(
                "leftImg8bit_trainvaltest.zip",
                "11 GB",
                md5="0a6e97e94b616a514066c9e2adb0c97f",
                page=_CITYSCAPES,
            ),
            Archive(
                "gtFine_trainvaltest.zip", "0.3 GB", md5="4237c19de34c8a376e9ba46b495d6f66", page=_CITYSCAPES
            ),
        ),
        image=r"leftImg8bit/(?:train|val)/[^/]+/([^/.]+)_leftImg8bit\.png",
        mask=r"gtFine/(?:train|val)/[^/]+/([^/.]+)_gtFine_labelIds\.png",
        classes="cityscapes",
        folders=_TRAIN_VAL,
        rest=255,
        note="2,975 train and 500 val images; the 19 classes that are evaluated",
    ),
    "ade20k": Benchmark(
        "ADE20K (scene parsing, 150 classes)",
        (
            Archive(
                "ADEChallengeData2016.zip",
                "1.0 GB",
                "http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip",
                "7328b3957e407ddae1d3cbf487f149ef",
            ),
        ),
        image=r"ADEChallengeData2016/images/(?:training|validation)/([^/.]+)\.jpg",
        mask=r"ADEChallengeData2016/annotations/(?:training|validation)/([^/.]+)\.png",
        classes="ade20k",
        folders={"train": "/training/", "val": "/validation/"},
        rest=255,
        note="20,210 train and 2,000 val images; class names as in mmsegmentation",
    ),
    "foodseg103": Benchmark(
        "FoodSeg103",
        (
            Archive(
                "FoodSeg103.zip",
                "",
                "https://research.larc.smu.edu.sg/downloads/datarepo/FoodSeg103.zip",
                page=_FOOD,
            ),
        ),
        image=r"Images/img_dir/(?:train|test)/([^/.]+)\.jpg",
        mask=r"Images/ann_dir/(?:train|test)/([^/.]+)\.png",
        classes="foodseg103",
        folders={"train": "/train/", "test": "/test/"},
        note=f"4,983 train and 2,135 test images; the zip is encrypted, its password is on {_FOOD}: "
        "convert with --password",
    ),
    "cub200": Benchmark(
        "CUB-200-2011",
        (
            Archive(
                "CUB_200_2011.tgz",
                "1.2 GB",
                f"{_CALTECH}/65de6-vp158/files/CUB_200_2011.tgz",
                "97eceeb196236b17998738112f37df78",
            ),
            Archive(
                "segmentations.tgz",
                "39 MB",
                f"{_CALTECH}/w9d68-gec53/files/segmentations.tgz",
                "4d47ba1228eae64f2fa547c47bc65255",
            ),
        ),
        image=r"CUB_200_2011/images/[^/]+/([^/.]+)\.jpg",
        mask=r"segmentations/[^/]+/([^/.]+)\.png",
        classes="cub200",
        lists={"flags": "CUB_200_2011/train_test_split.txt", "names": "CUB_200_2011/images.txt"},
        read="birds",
        note="5,994 train and 5,794 test images; a pixel is bird where most of five annotators say so, "
        "and of the species its folder names",
    ),
    "acdc": Benchmark(
        "ACDC (Cityscapes' classes in fog, night, rain and snow)",
        (Archive("rgb_anon_trainvaltest.zip", "", page=_ACDC), Archive("gt_trainval.zip", "", page=_ACDC)),
        image=r"rgb_anon/(fog|night|rain|snow)/(?:train|val)/[^/]+/([^/.]+)_rgb_anon\.png",
        mask=r"gt/(fog|night|rain|snow)/(?:train|val)/[^/]+/([^/.]+)_gt_labelIds\.png",
        classes="cityscapes",
        folders=_TRAIN_VAL | {f"{w}_{s}": f"/{w}/{s}/" for w in _WEATHER for s in ("train", "val")},
        rest=255,
        note="1,600 train and 406 val images; splits night_train, fog_val and so on hold one condition",
    ),
}


def find(name: str) -> Benchmark:
    """A dataset by name.

    Raises:
        ValueError: there is no such dataset; lists those there are.
    """
    if name not in BENCHMARKS:
        raise ValueError(f"unknown dataset {name!r}. Known: {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name]
