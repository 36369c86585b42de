"""The top 10 of every user from an export and faiss: python examples/faiss_top_k.py embeddings"""

import sys

import faiss
import numpy as np
import scipy.sparse as sp

folder = sys.argv[1]
users, items = (np.load(f"{folder}/{side}.npz") for side in ("users", "items"))
seen = sp.load_npz(f"{folder}/histories.npz")
index = faiss.IndexFlatIP(items["vectors"].shape[1])  # the metric is dot; for cosine too
index.add(items["vectors"].astype(np.float32))
most_seen = int(np.diff(seen.indptr).max())  # search for more, then leave out what is known
_, found = index.search(users["vectors"].astype(np.float32), min(10 + most_seen, index.ntotal))
tokens = items["tokens"]
for user, rows in zip(users["tokens"], zip(found, np.split(seen.indices, seen.indptr[1:-1]))):
    print(user, *tokens[rows[0][~np.isin(rows[0], rows[1])][:10]])
