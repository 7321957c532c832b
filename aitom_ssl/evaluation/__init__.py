"""What a network has learned: metrics of a classifier, probes on frozen features, collapse, figures and reports."""

from aitom_ssl.evaluation.classification import ClassificationMetrics, classification_metrics
from aitom_ssl.evaluation.classification_report import write_classification_report
from aitom_ssl.evaluation.collapse import effective_rank, embedding_std
from aitom_ssl.evaluation.compare import Comparison, compare_encoders
from aitom_ssl.evaluation.embedding import pca, tsne
from aitom_ssl.evaluation.few_labels import cluster_scores, kmeans
from aitom_ssl.evaluation.gradcam import class_activation_map, grad_cam, respond_cam
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
    "ClassificationMetrics",
    "Command",
    "Comparison",
    "Highlights",
    "Picture",
    "ProbeResult",
    "Section",
    "Table",
    "class_activation_map",
    "classification_metrics",
    "cluster_scores",
    "compare_encoders",
    "effective_rank",
    "embedding_std",
    "extract_features",
    "grad_cam",
    "kmeans",
    "knn_accuracy",
    "knn_predict",
    "linear_probe",
    "pca",
    "respond_cam",
    "stratified_fraction",
    "tsne",
    "write_classification_report",
    "write_pretraining_report",
    "write_report",
]
