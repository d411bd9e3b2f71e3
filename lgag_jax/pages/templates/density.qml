{% extends "raster.qml" %}
{% block type %}type="singlebandpseudocolor" classificationMin="0" classificationMax="{{ top }}"{% endblock %}
{% block band %}2{% endblock %}
{% block colours %}
      <rastershader>
        <colorrampshader colorRampType="INTERPOLATED" classificationMode="1" clip="0" minimumValue="0" maximumValue="{{ top }}">
{% for part, colour, alpha in ramp %}
          <item value="{{ '%g' % (part * top) }}" color="{{ colour }}" alpha="{{ alpha }}" label="{{ ('{:,.0f}' if top >= 100 else '{:.3g}').format(part * top) }} per km²"/>
{% endfor %}
        </colorrampshader>
      </rastershader>
{% endblock %}
