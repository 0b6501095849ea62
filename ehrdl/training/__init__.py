"""The Lightning shell, fitting, baselines, prediction, and the run folder."""
