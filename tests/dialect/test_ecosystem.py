"""What stands on SQLAlchemy runs on the native driver by its URL alone."""

from __future__ import annotations

import datetime as dt
import decimal

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

pytestmark = pytest.mark.timeout(300)

ENV = """\
from alembic import context
from sqlalchemy import create_engine

engine = create_engine(context.config.get_main_option("sqlalchemy.url"))
with engine.connect() as connection:
    context.configure(connection=connection, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()
engine.dispose()
"""
MIGRATION = """\
import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql as pg

revision = {revision!r}
down_revision = {before!r}


def upgrade():
{up}


def downgrade():
{down}
"""
FIRST = """\
    op.create_table(
        "shops",
        sa.Column("id", sa.Integer, sa.Identity(), primary_key=True),
        sa.Column("name", sa.Text, nullable=False, unique=True),
        sa.Column("kind", sa.Enum("small", "great", name="shop_kind")),
        sa.Column("facts", pg.JSONB, server_default=sa.text("'{}'")),
    )
    op.bulk_insert(
        sa.table("shops", sa.column("name"), sa.column("kind")),
        [{"name": f"shop {n} 100%", "kind": "small"} for n in range(20)],
    )"""
SECOND = """\
    op.add_column("shops", sa.Column("opened", sa.DateTime(timezone=True)))
    shops = sa.table("shops", sa.column("id"), sa.column("opened"))
    op.execute(shops.update().where(shops.c.id > 5).values(opened=sa.func.now()))
    op.execute("update shops set facts = '{\\"a\\": 1}' where name like '%0 100%'")
    with op.get_context().autocommit_block():
        op.execute("alter type shop_kind add value 'middling'")
        op.create_index(
            "shops_opened", "shops", ["opened"], postgresql_concurrently=True
        )"""
THIRD = """\
    op.alter_column("shops", "name", type_=sa.String(50))
    connection = op.get_bind()
    left = sa.text("select count(*) from shops where opened is null")
    found = connection.execute(left)
    assert found.scalar_one() == 5
    op.create_check_constraint("named", "shops", "name <> ''")"""
DOWN = (
    '    op.drop_table("shops")\n    op.execute("drop type shop_kind")',
    '    op.drop_column("shops", "opened")',
    '    op.drop_constraint("named", "shops")',
)


@pytest.fixture
def url(pg_url, observer):
    """Name an empty database."""
    observer.rows("drop database if exists ecosystem (force)")
    observer.rows("create database ecosystem")
    yield pg_url("poolproof").set(database="ecosystem")
    observer.rows("drop database ecosystem (force)")


@pytest.fixture
def engine(url):
    made = sa.create_engine(url)
    yield made
    made.dispose()


@pytest.fixture
def migrations(url, tmp_path):
    """Write three migrations down."""
    alembic = pytest.importorskip("alembic.config")
    (tmp_path / "versions").mkdir()
    (tmp_path / "env.py").write_text(ENV)
    before = None
    for number, up in enumerate((FIRST, SECOND, THIRD)):
        revision = f"r{number}"
        text = MIGRATION.format(
            revision=revision, before=before, up=up, down=DOWN[number]
        )
        (tmp_path / "versions" / f"{revision}.py").write_text(text)
        before = revision
    config = alembic.Config()
    config.set_main_option("script_location", str(tmp_path))
    config.set_main_option("path_separator", "os")
    shown = url.render_as_string(hide_password=False)
    config.set_main_option("sqlalchemy.url", shown.replace("%", "%%"))
    return config


def test_alembic_upgrades_to_its_head_and_back(migrations, engine):
    from alembic import command
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    command.upgrade(migrations, "head")
    with engine.connect() as connection:
        described = sa.MetaData()
        described.reflect(connection)
        context = MigrationContext.configure(connection)
        assert context.get_current_revision() == "r2"
        described.remove(described.tables["alembic_version"])
        assert compare_metadata(context, described) == []
        shops = described.tables["shops"]
        assert set(shops.c.kind.type.enums) == {"small", "great", "middling"}
        changed = sa.select(shops.c.facts).where(shops.c.name == "shop 10 100%")
        assert connection.scalar(changed) == {"a": 1}
        assert [index["name"] for index in sa.inspect(connection).get_indexes("shops")]
    command.downgrade(migrations, "base")
    assert sa.inspect(engine).get_table_names() == ["alembic_version"]


def test_pandas_writes_and_reads_what_it_wrote(engine):
    pandas = pytest.importorskip("pandas")
    zone = dt.timezone.utc
    written = pandas.DataFrame(
        {
            "number": [1, 2**40, -3],
            "share": [0.5, float("nan"), 1e300],
            "name": ["a", "ü%s", None],
            "right": [True, False, True],
            "at": pandas.to_datetime(
                ["2026-12-01 00:00:00.0", None, "1999-01-01 12:30:00.5"]
            ),
            "zoned": [dt.datetime(2026, 12, 1, tzinfo=zone)] * 3,
            "bytes": [b"\0\xff", b"", b"x"],
        }
    )
    for method in (None, "multi"):
        count = written.to_sql(
            "frames",
            engine,
            index=False,
            if_exists="replace",
            method=method,
            dtype={"bytes": sa.LargeBinary},
        )
        assert count == 3
        for read in (
            pandas.read_sql_table("frames", engine),
            pandas.read_sql("select * from frames", engine),
        ):
            assert list(read["number"]) == [1, 2**40, -3]
            assert read["share"].isna().tolist() == [False, True, False]
            assert read["share"][2] == 1e300
            assert read["name"].tolist()[:2] == ["a", "ü%s"]
            assert read["right"].tolist() == [True, False, True]
            assert read["at"].isna().tolist() == [False, True, False]
            assert read["at"][2] == pandas.Timestamp("1999-01-01 12:30:00.5")
            assert read["zoned"][0] == pandas.Timestamp("2026-12-01", tz="UTC")
            assert [bytes(value) for value in read["bytes"]] == [b"\0\xff", b"", b"x"]
    asked = sa.text("select * from frames where number > :least")
    with engine.connect() as connection:
        found = pandas.read_sql(asked, connection, params={"least": 0})
        assert len(found) == 2
        parts = pandas.read_sql("select * from frames", connection, chunksize=2)
        assert [len(part) for part in parts] == [2, 1]


def test_numpys_scalars_travel_as_pythons(engine):
    numpy = pytest.importorskip("numpy")
    values = {
        "a": (numpy.int64(2**40), 2**40),
        "b": (numpy.int8(-5), -5),
        "c": (numpy.float64(0.25), 0.25),
        "d": (numpy.float32(0.5), 0.5),
        "e": (numpy.bool_(True), True),
        "f": (numpy.str_("x"), "x"),
    }
    kinds = {
        **dict.fromkeys("ab", sa.BigInteger),
        **dict.fromkeys("cd", sa.Double),
        "e": sa.Boolean,
        "f": sa.Text,
    }
    asked = sa.select(
        *(
            sa.bindparam(name, value, kinds[name]).label(name)
            for name, (value, _) in values.items()
        )
    )
    table = sa.Table(
        "scalars", sa.MetaData(), sa.Column("n", sa.BigInteger, primary_key=True)
    )
    with engine.begin() as connection:
        [row] = connection.execute(asked)
        assert tuple(row) == tuple(right for _, right in values.values())
        table.create(connection)
        rows = [{"n": n} for n in numpy.arange(100)]
        connection.execute(table.insert(), rows)
        found = connection.scalars(
            sa.select(table.c.n).where(table.c.n.in_(list(numpy.arange(5))))
        )
        assert sorted(found) == [0, 1, 2, 3, 4]


def test_flask_sqlalchemy_serves(url):
    flask = pytest.importorskip("flask")
    extension = pytest.importorskip("flask_sqlalchemy")
    from poolproof.integrations import flask as integration

    app = flask.Flask("shop")
    app.config["SQLALCHEMY_DATABASE_URI"] = url
    db = extension.SQLAlchemy()
    db.init_app(app)
    integration.init_app(app, db)

    class Order(db.Model):
        id = sa.Column(sa.Integer, sa.Identity(), primary_key=True)
        price = sa.Column(sa.Numeric(10, 2))
        tags = sa.Column(pg.ARRAY(sa.Text))

    @app.post("/order/<price>")
    def order(price):
        made = Order(price=decimal.Decimal(price), tags=["new", price])
        db.session.add(made)
        db.session.commit()
        return {"id": made.id}

    @app.get("/order/<int:number>")
    def show(number):
        found = db.get_or_404(Order, number)
        return {"price": str(found.price), "tags": found.tags}

    with app.app_context():
        db.create_all()
    client = app.test_client()
    numbers = [client.post(f"/order/{n}.50").json["id"] for n in range(5)]
    assert numbers == [1, 2, 3, 4, 5]
    assert client.get("/order/3").json == {"price": "2.50", "tags": ["new", "2.50"]}
    assert client.get("/order/99").status_code == 404
    with app.app_context():
        assert db.session.scalar(sa.select(sa.func.count(Order.id))) == 5
        page = db.paginate(sa.select(Order).order_by(Order.id), per_page=2)
        assert (page.total, len(page.items)) == (5, 2)
        db.engine.dispose()
