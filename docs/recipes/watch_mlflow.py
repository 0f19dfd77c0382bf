"""Send scalars to MLflow: see docs/guides/watch-a-training.md."""

import mlflow

run = mlflow.start_run()


def log(scalars, step):
    """Send the scalars of one step."""
    mlflow.log_metrics(scalars, step=step)
