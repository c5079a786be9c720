"""Collecting results for models of one's own: their answers to a benchmark's prompts, grades for them, and a judge's verdicts.

The way of a prompt: `conversations` reads it, `engine` asks a model (`chat`) at the allowed pace (`pacing`) and price
(`prices`), `journal` keeps every finished call; `grading` and `judging` make a benchmark file or battles out of that.
"""
