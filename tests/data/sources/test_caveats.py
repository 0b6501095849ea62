"""What a source's data cannot tell stands in the reports on that source alone."""

import pytest

from ehrdl.sources.diabetes130.source import Diabetes130
from ehrdl.sources.meds.source import Meds
from ehrdl.sources.mimic4.source import Mimic4
from ehrdl.sources.physionet2012.source import Physionet2012
from ehrdl.sources.physionet2019.source import Physionet2019
from ehrdl.sources.synthetic import Synthetic
from ehrdl.tasks import diabetes, mortality, readmission, sepsis2019
from ehrdl.tasks import heart_failure as diagnosis
from ehrdl.tasks import length_of_stay as stay

SOURCES = [Diabetes130, Meds, Mimic4, Physionet2012, Physionet2019, Synthetic]
TASKS = [diabetes, diagnosis, mortality, readmission, sepsis2019, stay]


@pytest.mark.parametrize("source", SOURCES)
def test_caveats_are_sentences_and_only_mimics_reader_speaks_of_mimic(source):
    assert all(line.endswith(".") for line in source.caveats)
    assert ("MIMIC" in " ".join(source.caveats)) == (source is Mimic4)


@pytest.mark.parametrize("task", TASKS)
def test_no_task_speaks_of_the_patients_of_one_source(task):
    assert "MIMIC" not in " ".join(task.CAVEATS)
