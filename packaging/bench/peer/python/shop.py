# SPDX-License-Identifier: AGPL-3.0-or-later
# ruff: noqa: E402 # Django is set up before its parts are imported.
"""An application as many have one: Django routes and renders, SQLAlchemy loads.

Its database is a file in memory that each process opens for itself.
"""

import json
import sys
import types

import django
from django.conf import settings

PAGE = """<ul>{% for order in orders %}
<li>{{ order.customer|upper }} {{ order.total|floatformat:2 }}{% if order.total > 3 %}!{% endif %}</li>
{% endfor %}</ul>{% for n in numbers %}{{ n }},{% endfor %}"""

settings.configure(
    SECRET_KEY="not one",
    ROOT_URLCONF="shop_urls",
    ALLOWED_HOSTS=["*"],
    USE_TZ=True,
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    MIDDLEWARE=["django.middleware.security.SecurityMiddleware", "django.middleware.common.CommonMiddleware"],
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "OPTIONS": {"loaders": [("django.template.loaders.locmem.Loader", {"page.html": PAGE})]},
        }
    ],
)
django.setup()

import sqlalchemy as sa
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.template.loader import get_template
from django.urls import path
from sqlalchemy import orm

Base = orm.declarative_base()


class Order(Base):
    __tablename__ = "orders"
    id = sa.Column(sa.Integer, primary_key=True)
    customer = sa.Column(sa.String)
    total = sa.Column(sa.Float)


class Item(Base):
    __tablename__ = "items"
    id = sa.Column(sa.Integer, primary_key=True)
    order_id = sa.Column(sa.ForeignKey("orders.id"))
    name = sa.Column(sa.String)
    order = orm.relationship(Order, backref="items")


engine = None


def database():
    global engine
    if engine is None:
        engine = sa.create_engine("sqlite://")
        Base.metadata.create_all(engine)
        with orm.Session(engine) as session:
            for n in range(50):
                session.add(Order(customer=f"customer {n}", total=n / 7, items=[Item(name="a"), Item(name="b")]))
            session.commit()
    return engine


def orders(request):
    with orm.Session(database()) as session:
        query = sa.select(Order).options(orm.selectinload(Order.items)).where(Order.total > 1).order_by(Order.customer)
        found = session.scalars(query).all()
        html = get_template("page.html").render({"orders": found, "numbers": range(100)})
        data = [{"customer": order.customer, "items": [item.name for item in order.items]} for order in found]
    return HttpResponse(html + json.dumps(data))


urls = types.ModuleType("shop_urls")
urls.urlpatterns = [path("orders", orders)]
sys.modules["shop_urls"] = urls
application = get_wsgi_application()


def warm():
    """For floor.warm: what the workers will do, and nothing of it left open."""
    global engine
    import prefork

    prefork.warm_wsgi(application, ["/orders"], 300)
    engine.dispose()
    engine = None
