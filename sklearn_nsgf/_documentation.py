"""Where the documentation is: messages and the HTML of an estimator point there."""

from __future__ import annotations

# Of the published pages, with a slash at the end. Empty as long as they are nowhere published.
ADDRESS = ""
# Of an estimator, for scikit-learn to fill in.
PAGE = ADDRESS and ADDRESS + "generated/{estimator_module}.{estimator_name}.html"


def question(label: str) -> str:
    """A sentence for the end of a message: which of the questions of the documentation explains it.

    Parameters
    ----------
    label : str
        Of the entry in docs/faq.rst.

    Examples
    --------
    >>> from sklearn_nsgf._documentation import question
    >>> question("faq-few-rows")
    ' See "Questions" in the documentation: faq.html#faq-few-rows'
    """
    return f' See "Questions" in the documentation: {ADDRESS}faq.html#{label}'
