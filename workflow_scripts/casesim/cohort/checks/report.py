"""The problems of one case, as they are found."""

from casesim.cohort.problem import Problem


class Report:
    """The problems of one case."""

    def __init__(self, case: str) -> None:
        self.case = case
        self.problems: list[Problem] = []

    def error(self, problem: str, how_to_fix: str) -> None:
        """Note what must be mended before anything is trained."""
        self.problems.append(Problem(self.case, "error", problem, how_to_fix))

    def warning(self, problem: str, how_to_fix: str) -> None:
        """Note what a person should look at."""
        self.problems.append(Problem(self.case, "warning", problem, how_to_fix))
