"""Batches as a function of (seed, step, rank, world size) alone: a run resumes exactly, and processes differ.

``step`` counts the batches of one shape from one set; :func:`encoder.training.shuffling.turn` tells it from the run's
step. An epoch draws each example once, and its batches are of one set and one width each. Texts' tokens carry no
special ones: of every width, ``room`` columns are left out, for what the model sets before and after a text.
"""

from __future__ import annotations

from encoder.training.crop_sampling import CropBatch as CropBatch
from encoder.training.crop_sampling import CropShape as CropShape
from encoder.training.crop_sampling import crop_batch as crop_batch
from encoder.training.crop_sampling import crops_per_epoch
from encoder.training.document_sampling import DocumentBatch as DocumentBatch
from encoder.training.document_sampling import DocumentShape as DocumentShape
from encoder.training.document_sampling import document_batch as document_batch
from encoder.training.document_sampling import planned_documents
from encoder.training.examples import TrainingSet
from encoder.training.pair_sampling import PairBatch as PairBatch
from encoder.training.pair_sampling import PairShape as PairShape
from encoder.training.pair_sampling import RankingBatch as RankingBatch
from encoder.training.pair_sampling import RankingShape as RankingShape
from encoder.training.pair_sampling import pair_batch as pair_batch
from encoder.training.pair_sampling import planned_pairs, planned_rankings
from encoder.training.pair_sampling import ranking_batch as ranking_batch
from encoder.training.text_sampling import TextBatch as TextBatch
from encoder.training.text_sampling import TextShape as TextShape
from encoder.training.text_sampling import planned_texts
from encoder.training.text_sampling import text_batch as text_batch

Shape = PairShape | CropShape | RankingShape | TextShape | DocumentShape


def batches_per_epoch(training_set: TrainingSet, shape: Shape, world_size: int = 1) -> int:
    """Count the steps in which every example of a set is drawn; errors as for the batches."""
    match shape:
        case PairShape():
            buckets = planned_pairs(training_set, shape).buckets
        case CropShape():
            return crops_per_epoch(training_set, shape, world_size)
        case RankingShape():
            buckets = planned_rankings(training_set, shape)
        case TextShape():
            buckets = planned_texts(training_set, shape)
        case DocumentShape():
            buckets = planned_documents(training_set, shape)
    return buckets.batches_per_epoch(world_size)
