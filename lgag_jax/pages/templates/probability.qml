{% extends "raster.qml" %}
{% block type %}type="singlebandpseudocolor" classificationMin="0" classificationMax="{{ top }}"{% endblock %}
{% block colours %}
      <rastershader>
        <colorrampshader colorRampType="INTERPOLATED" classificationMode="1" clip="0" minimumValue="0" maximumValue="{{ top }}">
{% for probability, colour, alpha in ramp %}
          <item value="{{ '%g' % (probability * top) }}" color="{{ colour }}" alpha="{{ alpha }}" label="{{ '%.0f' % (100 * probability) }}%"/>
{% endfor %}
        </colorrampshader>
      </rastershader>
{% endblock %}
