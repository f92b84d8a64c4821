"""Words of services' error codes that errors show."""

from __future__ import annotations

#: A code with any other word is not shown: it could be a key or a part of a text.
WORDS = frozenset(
    """
    a above access account active ai allocation allowed an api argument arguments array arrearage at auth
    authentication authorization authz backend bad balance batch be bearer below billing blank blocked body budget
    busy by call can canceled cancelled cannot capacity client closed code conflict connection consume content
    context country credential credentials credit credits current data day deadline denied dependency deployment
    detail dim dimension dimensions disabled do document does early embedding embeddings empty endpoint engine
    entity error exceed exceeded exception exhausted exists expectation expired extended extra failed failure field
    fields file filter filtered first float for forbidden format found free funds gateway gateways gone hard has
    have header headers http id in inference input inputs inspection insufficient internal internalservererror
    invalid is it item items json key large least legal length less limit limited limits list load loaded loading
    locked long loop malformed management many max maximum media method min minimum minute misdirected mismatch
    missing mode model models moderation month more most moved name nan negotiates network new no not null number
    numbers numeric of one only openai operation organization overload overloaded paid param parameter params parse
    parsing path payment per permission permissions policy pooling pre precondition processing prompt proxy quota
    quotas rate reached read ready reason reasons redirect refused region rejected request requests required
    resource response responsible route rpm safety schema server service short signature size sizes spend state
    status storage string strings subscription such supported system task team teapot temporarily territory text
    texts than throttled throttling tier timeout to token tokenizer tokens too tpm type types unauthenticated
    unauthorised unauthorized unavailable unexpected unhealthy unknown unprocessable unrecognized unsupported
    upgrade upstream url usage user v validation value variant version violation was whitespace window with wrong x
    """.split()  # noqa: SIM905 - a list of words
)
