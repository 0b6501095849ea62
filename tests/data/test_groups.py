import numpy as np
import pandas as pd

from ehrdl.data.groups import named_groups


def test_a_group_of_few_patients_is_not_named_however_many_samples_they_have():
    subjects = np.r_[np.arange(10), np.arange(10, 19), np.repeat(19, 30), [20]]
    language = np.r_[["english"] * 10, ["welsh"] * 9, ["cornish"] * 30, [None]]
    samples = pd.DataFrame({"subject_id": subjects, "group_language": language, "group_age_band": "18-44"})
    found = named_groups(samples, 10)
    assert found.group_language[:49].tolist() == ["english"] * 10 + ["fewer than 10 patients"] * 39
    assert found.group_language[49:].isna().all()
    assert found.group_age_band.tolist() == ["18-44"] * 50
    assert named_groups(samples, 9).group_language.value_counts().to_dict() == {
        "fewer than 9 patients": 30, "english": 10, "welsh": 9
    }  # fmt: skip
    assert named_groups(samples, 1) is not samples and named_groups(samples, 1).equals(samples)
