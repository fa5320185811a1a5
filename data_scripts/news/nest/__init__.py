"""NEST in miniature: questions whose answers were not known when the encoder was trained."""

from data_scripts.news.nest.engine import NEST_SHARE, Nest, build_nest
from data_scripts.news.nest.folder import load_nest, save_nest
from data_scripts.news.nest.from_articles import build_from_articles, roles_by_model, roles_by_rules
from data_scripts.news.nest.run import measure, run_nest
from data_scripts.news.nest.sample import NestSample, same_answer
from data_scripts.news.nest.systems import Result, System
from data_scripts.news.nest.table import markdown, summarise_nest, write_tables

__all__ = [
    "NEST_SHARE",
    "Nest",
    "NestSample",
    "Result",
    "System",
    "build_from_articles",
    "build_nest",
    "load_nest",
    "markdown",
    "measure",
    "roles_by_model",
    "roles_by_rules",
    "run_nest",
    "same_answer",
    "save_nest",
    "summarise_nest",
    "write_tables",
]
