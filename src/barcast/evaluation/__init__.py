"""Evaluation: metrics, backtest, gate, report, reliability, model card.

Out-of-sample predictions and bars come in; numbers, a verdict and pages for people go out. Import the module
that is needed (`from barcast.evaluation import gate`); the main calls are
`evaluate.evaluate`, `backtest.run`, `gate.decide`, `report.render`, `report.markdown`, `reliability.index`,
`model_card.render` and `replay.run`.
"""
