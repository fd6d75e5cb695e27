"""The noun hierarchy of WordNet 3.0: the synsets that ImageNet's ids name, and what is above and below them.

The table `nouns.parquet` is packaged; `python -m curate.wordnet` makes it again from the database
files, through NLTK. WordNet is Princeton University's: see `LICENSE-WordNet.txt`.
"""

from curate.wordnet.hierarchies import Nouns, nouns
from curate.wordnet.names import unique_names
from curate.wordnet.tables import digest, table_digest, table_path
from curate.wordnet.trees import Parents, Tree, below, tree
from curate.wordnet.views import create_views

__all__ = [
    "Nouns",
    "Parents",
    "Tree",
    "below",
    "create_views",
    "digest",
    "nouns",
    "table_digest",
    "table_path",
    "tree",
    "unique_names",
]
