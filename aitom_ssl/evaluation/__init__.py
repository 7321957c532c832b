"""What an encoder has learned: probes on frozen features, collapse, comparisons, figures and reports."""

from aitom_ssl.evaluation.collapse import effective_rank, embedding_std
from aitom_ssl.evaluation.compare import Comparison, compare_encoders
from aitom_ssl.evaluation.embedding import pca, tsne
from aitom_ssl.evaluation.pretraining_report import write_pretraining_report
from aitom_ssl.evaluation.probes import (
    ProbeResult,
    extract_features,
    knn_accuracy,
    knn_predict,
    linear_probe,
    stratified_fraction,
)
from aitom_ssl.evaluation.report import Command, Highlights, Picture, Section, Table, write_report

__all__ = [
    "Command",
    "Comparison",
    "Highlights",
    "Picture",
    "ProbeResult",
    "Section",
    "Table",
    "compare_encoders",
    "effective_rank",
    "embedding_std",
    "extract_features",
    "knn_accuracy",
    "knn_predict",
    "linear_probe",
    "pca",
    "stratified_fraction",
    "tsne",
    "write_pretraining_report",
    "write_report",
]
