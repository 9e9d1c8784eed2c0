"""Messages that point at an entry of the documentation's questions."""

import re
from pathlib import Path

import pytest

import sklearn_nsgf
from sklearn_nsgf import SinkhornFlowTransport
from sklearn_nsgf.domains import DomainKFold

PACKAGE = Path(sklearn_nsgf.__file__).parent
QUESTIONS = Path(__file__).parents[1] / "docs" / "faq.rst"
LABELS = {
    label
    for path in PACKAGE.rglob("*.py")
    for label in re.findall(r'question\("([\w-]+)"\)', path.read_text())
}


def test_a_message_names_its_question():
    with pytest.raises(
        ValueError, match=r"sample_domain\. See .* documentation: .*faq\.html#faq-domain-kfold$"
    ):
        DomainKFold().split([[0.0], [1.0]])
    with pytest.raises(ValueError, match=r"faq\.html#faq-one-dimensional-y$"):
        SinkhornFlowTransport().fit([[0.0], [1.0]], [0.0, 1.0, 2.0])


def test_the_questions_are_there():
    assert len(LABELS) > 5
    entries = set(re.findall(r"^\.\. _(faq-[\w-]+):$", QUESTIONS.read_text(), re.M))
    assert LABELS <= entries
