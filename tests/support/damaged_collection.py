"""Damage of collections in Parquet."""

import pyarrow as pa
import pyarrow.parquet as pq


def damage(destination):
    """Give each row the vector of another one."""
    table = pq.read_table(destination)
    place = table.schema.get_field_index("vector")
    vectors = table.column(place).to_pylist()
    moved = pa.array([*vectors[1:], vectors[0]], table.schema.field(place).type)
    pq.write_table(table.set_column(place, table.schema.field(place), moved), destination)
