"""The folder of a cross-validation: what was run, what came out of each fold, and the report made from it.

run.json                                     what was asked for, and on what
truth.parquet                                what is known of the photographs that are tested
audit.json                                   the audit of the atlas, if it had one
<system>/seed-<s>/fold-<k>/log.jsonl         losses and rates over the iterations
<system>/seed-<s>/fold-<k>/checkpoint/       state.safetensors while it trains, weights.safetensors when done
<system>/seed-<s>/fold-<k>/predictions.parquet
<system>/seed-<s>/fold-<k>/result.json       written last: the fold is done
<system>/seed-<s>/predictions.parquet        all folds, out of fold
<system>/seed-<s>/refit/                     log.jsonl, checkpoint/ and result.json of the training on all groups
<ensemble>/seed-<s>/predictions.parquet      of the systems it puts together
report/                                      report.json, report.html, figures and tables
.lock                                        held by the process that works on the run
"""

from predilect.run.finished import LOG_FILE, PREDICTIONS_FILE, STATE_FILE, WEIGHTS_FILE
from predilect.run.folder import Run
from predilect.run.plan import ENSEMBLES, Ensemble, ReportPlan, check_members

__all__ = [
    "ENSEMBLES",
    "LOG_FILE",
    "PREDICTIONS_FILE",
    "STATE_FILE",
    "WEIGHTS_FILE",
    "Ensemble",
    "ReportPlan",
    "Run",
    "check_members",
]
