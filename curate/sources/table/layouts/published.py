"""The published layouts. Columns are as the files have them; where releases differ, each is named."""

from __future__ import annotations

from curate.sources.table.layouts.layout import ColumnExpr, TableLayout


def _joined(*parts: str) -> str:
    """Return SQL that joins texts by spaces, over those that are there; NULL where none is."""
    there = ", ".join(f"nullif({part}, '')" for part in parts)
    return f"nullif(concat_ws(' ', {there}), '')"


def _plain(column: str) -> str:
    """Return SQL for a text of YFCC100M as a reader sees it: no percent codes, no HTML, single spaces.

    A plus is a space and %2B a plus. A text whose percent codes are no UTF-8 keeps them.
    """
    spaced = f"replace({column}::VARCHAR, '+', ' ')"
    decoded = f"coalesce(TRY(url_decode({spaced})), {spaced})"
    return rf"trim(regexp_replace(regexp_replace({decoded}, '<[^<>]*>', '', 'g'), '\s+', ' ', 'g'))"


# Only a table with YFCC100M's own columns has its texts encoded; the tables made from it have them decoded.
_ENCODED = ("secretoriginal",)

_YFCC100M = (
    "photoid", "uid", "unickname", "datetaken", "dateuploaded", "capturedevice", "title", "description", "usertags",
    "machinetags", "longitude", "latitude", "accuracy", "pageurl", "downloadurl", "licensename", "licenseurl",
    "serverid", "farmid", "secret", "secretoriginal", "ext", "marker",
)  # fmt: skip

LAYOUTS = (
    TableLayout(
        "laion",
        about="LAION-400M (413 million English pairs), LAION-5B (5.85 billion) and Re-LAION: alt-texts of Common "
        "Crawl; similarity is that of a CLIP ViT-B/32",
        origin="https://laion.ai/blog/laion-400-open-dataset/ and https://laion.ai/blog/laion-5b/; Parquet on "
        "https://huggingface.co/laion",
        terms="metadata CC BY 4.0; the images are under their own copyright",
        # unverified: the terms of Re-LAION, whose columns are those of laion2B-en-joined.
        columns={
            "url": ("URL",),
            "caption": ("TEXT", "caption"),
            "width": ("WIDTH", "original_width"),
            "height": ("HEIGHT", "original_height"),
            "similarity": ("similarity",),
            "nsfw": ("NSFW", "punsafe"),
            "language": ("LANGUAGE",),
        },
        signatures=(
            ("URL", "TEXT", "NSFW", "similarity"),
            ("URL", "TEXT", "NSFW", "LICENSE"),
            ("URL", "TEXT", "punsafe", "pwatermark"),
            ("url", "caption", "punsafe", "pwatermark"),  # what img2dataset keeps of it
        ),
    ),
    TableLayout(
        "cc3m",
        about="Conceptual Captions: 3,318,333 alt-texts, cleaned and with names made general, and 15,840 to validate",
        origin="https://ai.google.com/research/ConceptualCaptions/download (TSV without a header line: caption, URL); "
        "https://huggingface.co/datasets/google-research-datasets/conceptual_captions (Parquet)",
        terms="freely usable for any purpose, acknowledgement of Google LLC appreciated; the images are not Google's",
        columns={"url": ("url", "image_url"), "caption": ("caption",)},
        signatures=(("image_url", "caption", "labels", "MIDs", "confidence_scores"),),
        headers=(("caption", "url"),),
        delimiter="\t",
        quote="",
    ),
    TableLayout(
        "cc12m",
        about="Conceptual 12M: 12,423,374 alt-texts, persons' names replaced by a token",
        origin="https://github.com/google-research-datasets/conceptual-12m (cc12m.tsv without a header line: URL, "
        "caption)",
        # unverified: the licence file itself; its wording is that of Conceptual Captions as far as cards repeat it.
        terms="freely usable for any purpose, acknowledgement of Google LLC appreciated; the images are not Google's",
        columns={"url": ("url", "image_url"), "caption": ("caption",), "sha256": ("sha256",)},
        headers=(("url", "caption"),),
        delimiter="\t",
        quote="",  # unverified: that no caption of the file is quoted
    ),
    TableLayout(
        "yfcc15m",
        about="the 14,829,396 photos of YFCC100M with a title or description in English that CLIP lists; "
        "the caption is Flickr's title and description",
        origin="the list: https://github.com/openai/CLIP/blob/main/data/yfcc100m.md (line, photo, hash: no text and no "
        "URL); the texts: YFCC100M's metadata, https://multimediacommons.wordpress.com/yfcc100m-core-dataset/, TSV "
        "without a header line; both joined: https://huggingface.co/datasets/dalle-mini/YFCC100M_OpenAI_subset",
        terms="each photo has the Creative Commons licence in `licensename`",
        columns={
            # unverified: `url` and `caption`, of the tables that others have made of the subset.
            "url": ("downloadurl", "url", "image_url"),
            "caption": (
                ColumnExpr(("title_clean", "description_clean"), _joined("title_clean", "description_clean")),
                ColumnExpr(
                    ("title", "description"), _joined(_plain("title"), _plain("description")), beside=_ENCODED
                ),
                ColumnExpr(("title", "description"), _joined("title::VARCHAR", "description::VARCHAR")),
                "caption",
                "text",
            ),
            "title": ("title_clean", ColumnExpr(("title",), _plain("title"), beside=_ENCODED), "title"),
            "description": (
                "description_clean",
                ColumnExpr(("description",), _plain("description"), beside=_ENCODED),
                "description",
            ),
        },
        signatures=(
            ("photoid", "title", "description", "downloadurl"),
            ("photoid", "title", "description", "url"),
        ),
        headers=(
            ("line", _YFCC100M[0], "hash", *_YFCC100M[1:]),
            _YFCC100M,  # unverified: the first release, without line and hash
        ),
        delimiter="\t",
        quote="",
    ),
    TableLayout(
        "redcaps",
        about="RedCaps: 12,011,121 titles of image posts in 350 subreddits; the caption is in lower case "
        "and without what stood in brackets, `raw_caption` is as posted",
        origin="https://redcaps.xyz/download (a JSON file a subreddit and year)",
        terms="annotations CC BY 4.0, use subject to the Reddit API terms; for non-commercial research only, and not "
        "for identifying people",
        columns={"url": ("url", "image_url"), "caption": ("caption", "raw_caption")},
        signatures=(
            ("info", "annotations"),
            ("image_id", "raw_caption", "subreddit", "permalink"),
        ),
        unlike=("images",),  # of COCO, which has info and annotations too
        nested=("annotations",),
        rows="SELECT unnest(annotations, max_depth := 2) FROM {file}",
    ),
    TableLayout(
        "wit",
        about="WIT: 37.1 million rows of 108 Wikipedias to train on; the caption is the reference description, what "
        "stands under the image on its page, which 16.9 million have",
        origin="https://github.com/google-research-datasets/wit/blob/main/DATA.md (10 TSV files with a header line, "
        "gzipped, 25 GB)",
        terms="CC BY-SA 3.0; the images have licences of their own",
        columns={
            "url": ("image_url",),
            "caption": (
                ColumnExpr(
                    ("caption_reference_description",), "nullif(trim(caption_reference_description), '')"
                ),
            ),
            "width": ("original_width",),
            "height": ("original_height",),
            "language": ("language",),
        },
        signatures=(("page_url", "image_url", "caption_reference_description"),),
        delimiter="\t",
        quote='"',
    ),
    TableLayout(
        "shutterstock",
        about="stock photographs with the descriptions of those who sell them; Entezari et al. 2023 had 15,540,452",
        origin="not public: an export of your own",
        terms="those of your agreement with Shutterstock",
        # unverified: all of them, for no table is published; they are usual names in exports and feeds.
        columns={
            "url": ("url", "image_url", "preview_url", "thumbnail_url", "image"),
            "caption": ("caption", "description", "title", "text"),
            "width": ("width", "image_width", "original_width"),
            "height": ("height", "image_height", "original_height"),
        },
    ),
    TableLayout(
        "datacomp",
        about="DataComp's CommonPool (12.8 million to 12.8 billion pairs) and DataComp-1B (1.4 billion): alt-texts of "
        "Common Crawl; similarity is that of CLIP ViT-B/32, ViT-L/14's stays `clip_l14_similarity_score`",
        origin="https://huggingface.co/datasets/mlfoundations/datacomp_pools (Parquet)",
        terms="samples and metadata CC BY 4.0; the images are under their own copyrights",
        columns={
            "url": ("url",),
            "caption": ("text",),
            "width": ("original_width",),
            "height": ("original_height",),
            "similarity": ("clip_b32_similarity_score",),
            "sha256": ("sha256",),
        },
        signatures=(
            ("uid", "url", "text", "clip_b32_similarity_score"),
            ("uid", "url", "text", "clip_l14_similarity_score"),
        ),
    ),
    TableLayout(
        "imagenet-captions",
        about="ImageNet-Captions: Flickr's title, tags and description of 463,622 images of ImageNet-1k. It has no "
        "URL, so there is nothing to fetch, and its rows are known by file name and text; `join` brings its texts to a "
        "folder of ImageNet, as recipes/entezari2023/captions.yaml does",
        origin="https://github.com/mlfoundations/imagenet-captions (a JSON list)",
        terms="not stated",
        columns={
            "url": (ColumnExpr((), "NULL"),),
            "caption": (
                ColumnExpr(
                    (),
                    _joined("title", "array_to_string(tags::VARCHAR[], ' ')", "description"),
                    beside=("title", "tags", "description"),
                ),
            ),
        },
        signatures=(("filename", "wnid", "title", "tags", "description"),),
        identity=("filename", "caption"),
    ),
    TableLayout(
        "sbu",
        about="SBU Captioned Photos: about a million Flickr photos with what their owners wrote",
        origin="https://www.cs.rice.edu/~vo9/sbucaptions/sbu-captions-all.tar.gz (a JSON object of parallel lists)",
        terms="not stated",
        columns={
            "url": ("image_url", "image_urls"),
            "caption": ("caption", "captions"),
        },
        signatures=(("image_urls", "captions"), ("image_url", "user_id", "caption")),
        nested=("image_urls", "captions"),
        rows="SELECT unnest(COLUMNS(*)) FROM {file}",
    ),
)
