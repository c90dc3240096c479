"""Warnings of libraries about what other libraries will take away; pytest stops at any other."""

import pytest

# MLflow asks SQLAlchemy and pandas for what is on its way out.
MLFLOW = (
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning"),
)
# PEFT asks transformers.
PEFT = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
