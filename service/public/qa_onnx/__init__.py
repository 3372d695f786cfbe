"""Owns the name that programs import this project by; knows nothing itself."""

from service.pipeline import QuestionAnsweringPipeline, pipeline

__all__ = ["QuestionAnsweringPipeline", "pipeline"]
