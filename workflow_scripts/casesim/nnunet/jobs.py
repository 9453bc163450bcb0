"""The jobs of this room that the warm process can do; see `casesim.processes.jobs`."""

from collections.abc import Sequence

# nnU-Net looks up readers, preprocessors and networks by name, at run time.
PREPROCESSING = (
    "casesim.nnunet.checkpoints",
    "casesim.nnunet.preprocessing",
    "nnunetv2.imageio.simpleitk_reader_writer",
    "nnunetv2.preprocessing.preprocessors.default_preprocessor",
    "nnunetv2.preprocessing.resampling.default_resampling",
    "nnunetv2.training.dataloading.nnunet_dataset",
)
IMPORTS = {"preprocess_case": PREPROCESSING}


def preprocess_case(
    images: Sequence[str],
    label: str,
    plans: str,
    dataset: str,
    configuration: str,
    stem: str,
) -> None:
    """Crop, resample and normalise one case; see `preprocessing.preprocess_case`."""
    from casesim.nnunet import preprocessing

    preprocessing.preprocess_case(images, label, plans, dataset, configuration, stem)
