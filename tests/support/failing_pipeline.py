"""A pipeline whose one step leaves a mark at each try, then fails. (kfp reads annotations: no future import here.)"""

from kfp import dsl


@dsl.component(install_kfp_package=False)
def fail(marks: str) -> str:
    """Mark the try, then fail."""
    with open(marks, "a") as file:
        file.write("x")
    raise RuntimeError("bad bars")


@dsl.pipeline(name="failing")
def failing(marks: str):
    """One step that would be tried three times on a cluster."""
    fail(marks=marks).set_retry(num_retries=2, backoff_duration="60s")
